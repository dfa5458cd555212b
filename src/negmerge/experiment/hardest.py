"""`forget: {hardest: n}`: models trained on halves of the rows tell which are most memorised, before the split."""

import torch

from negmerge.errors import InputError
from negmerge.experiment.config import Config
from negmerge.experiment.keys import digest
from negmerge.experiment.prepare import load_unwritten
from negmerge.experiment.rundir import RunDir, read_json, write_json
from negmerge.requests.hardest import deal_halves, hardest_of, memorisation
from negmerge.requests.rules import ForgetRule
from negmerge.seeding import derive_seed
from negmerge.tasks.settings import DataConfig
from negmerge.tasks.task import Starts, need
from negmerge.training.job import TrainingJob, train

FILE = "hardest.json"
WHO = "data.forget.hardest"


def asks_for_hardest(config: Config) -> bool:
    """Return whether the request is for the most memorised rows."""
    return config.data.forget is not None and config.data.forget.hardest is not None


def rows_trained(config: Config, rows: int) -> int:
    """Return how many rows are trained on to rank `rows` of them; none where nobody asks for the hardest."""
    rule, settings = config.data.forget, config.scratch_settings()
    if rule is None or rule.hardest is None or settings is None:
        return 0
    return rule.hardest.models * settings.count_rows(rows // 2)


def name_hardest(place: RunDir, config: Config) -> DataConfig:
    """Return the data part of a config with the most memorised rows by number, in a file of the run directory.

    Unless the file is there, models are trained from scratch, as the base is (or else the reference), each on half of
    the training rows, one after the other; what is trained stays in the private folder, so that an interrupted run goes
    on. Rows are ranked by `memorisation` of their confidence. Raises InputError for a task that cannot do this.
    """
    file = place.path / FILE
    rule, settings = config.data.forget, config.scratch_settings()
    assert rule is not None and rule.hardest is not None and settings is not None
    wanted = rule.hardest
    material = load_unwritten(config)
    task = material.task
    need(task, Starts, WHO)
    if "confidence" not in task.COLUMNS:
        raise InputError(f"{WHO} needs the column 'confidence', which the task {task.NAME} does not observe")
    rows = torch.cat([material.parts["retain"], material.parts["forget"]]).sort().values
    how = {name: config.resolved()[name] for name in ("task", "model", "compute", "device")}
    key = digest([how, settings.model_dump(mode="json"), wanted.model_dump(), rows.tolist(), material.split.source])
    if not file.exists() or read_json(file).get("key") != key:
        seed = config.data.seed
        inside = deal_halves(len(rows), wanted.models, torch.Generator().manual_seed(derive_seed(seed, "hardest")))
        known = []
        for i in range(wanted.models):
            job = TrainingJob(
                name=f"{WHO} {i + 1} of {wanted.models}",
                directory=place.private / "hardest" / str(i),
                task=task,
                rows=tuple(rows[inside[i]].tolist()),
                settings=settings.model_dump(mode="json"),
                seed=derive_seed(seed, "hardest", i),
                device=material.device,
                resumable=True,
                key=digest([key, i]),
            )
            with material.compute.float_products():
                facts = train(job)
                model = task.open(job.checkpoint, material.device)
                known.append(task.observe(model, {"rows": rows}, {"rows": ("confidence",)})["rows"]["confidence"])
            place.emit("trained", name=job.name, loss=facts["losses"][-1], seconds=round(facts["seconds"], 3))
        memorised = memorisation(torch.stack(known), inside)
        chosen = hardest_of(rows, memorised, wanted.n)
        of = dict(zip(rows.tolist(), memorised.tolist(), strict=True))
        listed = chosen.tolist()
        write_json(
            file,
            {
                "key": key,
                "models": wanted.models,
                "forget_rows": listed,
                "memorisation": [of[row] for row in listed],
                "mean_of_all": float(memorised.mean()),
            },
        )
    return config.data.model_copy(update={"forget": ForgetRule(rows=file)})
