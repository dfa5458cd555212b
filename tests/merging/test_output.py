"""Where OUT goes wrong: full disks, links, folders that are not ours, inputs, crashes between the renames."""

import errno
import os
import resource
import shutil

import pytest

from negmerge.checkpoints import open_checkpoint
from negmerge.cli import main
from negmerge.errors import InputError, NegmergeError
from negmerge.merging.engine import merge_checkpoints
from negmerge.merging.inspecting import inspect_checkpoints
from negmerge.merging.output.folder import recover_folder
from negmerge.merging.output.verifying import verify_model

OUTS = ["o.safetensors", "out", "shards"]


@pytest.fixture
def merge(pool, tmp_path):
    """Merge the pool to a name in `tmp_path/place`; returns a function, the place and what it holds."""
    place = tmp_path / "place"
    place.mkdir()

    def run(name, **more):
        size = "100" if name == "shards" else None
        return merge_checkpoints(pool[0], pool[1], place / name, max_shard_size=size, **more)

    return run, place


def content(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("out", OUTS)
@pytest.mark.parametrize("after", [0, 1, 5, 30])
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EIO])
def test_a_full_disk(merge, monkeypatch, out, after, code):
    run, place = merge
    write, calls = os.pwrite, []

    def full(descriptor, data, offset):
        calls.append(offset)
        if len(calls) > after:
            raise OSError(code, os.strerror(code))
        return write(descriptor, data[: max(1, len(data) // 2)], offset)  # short writes are no errors

    monkeypatch.setattr(os, "pwrite", full)
    with pytest.raises(NegmergeError, match=f"cannot be written: {os.strerror(code)}; free some space") as caught:
        run(out)
    assert str(caught.value).startswith(f"{place / out} cannot") and "\n" not in str(caught.value)
    assert list(place.iterdir()) == []
    monkeypatch.undo()
    run(out)
    assert verify_model(place / out).count > 0


@pytest.mark.parametrize("out", OUTS)
def test_an_old_out_outlives_a_full_disk(merge, monkeypatch, out):
    run, place = merge
    run(out)
    before = content(place)

    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(NegmergeError, match="No space left on device"):
        run(out, overwrite=True, alpha=0.5)
    assert content(place) == before


def test_a_limit_on_the_size_of_files(pool, tmp_path, capfd):
    """A file that may not grow, the real thing: one line and nothing left."""
    pid = os.fork()
    if pid == 0:
        resource.setrlimit(resource.RLIMIT_FSIZE, (500, 500))
        os._exit(exit_code([*map(str, (pool[0], *pool[1])), "-o", str(tmp_path / "o.safetensors")]))
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 1
    err = capfd.readouterr().err
    assert "o.safetensors cannot be written: File too large; free some space" in err and err.count("\n") == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["pool"]


def exit_code(words):
    try:
        main(["merge", *words])
    except SystemExit as stop:
        return stop.code


@pytest.mark.parametrize("out", OUTS)
def test_a_link_is_replaced_and_what_it_points_at_left_alone(merge, tmp_path, out):
    run, place = merge
    run(out)
    shutil.move(place / out, tmp_path / "real")
    if out.endswith(".safetensors"):
        (tmp_path / "real").rename(tmp_path / "real.safetensors")
    real = next(tmp_path.glob("real*"))
    before = real.read_bytes() if real.is_file() else content(real)
    (place / out).symlink_to(real)
    with pytest.raises(InputError, match="exists; choose another OUT"):
        run(out)
    run(out, overwrite=True, alpha=0.5)
    assert not (place / out).is_symlink() and verify_model(place / out).count > 0
    assert (real.read_bytes() if real.is_file() else content(real)) == before
    assert [path.name for path in place.iterdir()] == [out]


@pytest.mark.parametrize("out", OUTS)
@pytest.mark.parametrize("target", ["missing", "elsewhere"])
def test_links_in_the_place_of_what_is_not_yet_whole(merge, tmp_path, out, target):
    run, place = merge
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "precious").write_text("x")
    (place / f".{out}.partial").symlink_to(tmp_path / target)
    (place / f".{out}.negmerge-old").symlink_to(tmp_path / target)
    with pytest.raises(NegmergeError, match="cannot be written"):
        run(out)
    assert (elsewhere / "precious").read_text() == "x" and not (tmp_path / "missing").exists()
    assert not (place / out).exists()


def test_a_dangling_link_is_not_written_through(merge, tmp_path):
    run, place = merge
    (place / "out").symlink_to(tmp_path / "missing")
    with pytest.raises(InputError, match="exists; choose another OUT"):
        run("out")
    with pytest.raises(InputError, match="was not written by negmerge"):
        run("out", overwrite=True)
    assert not (tmp_path / "missing").exists()


@pytest.mark.parametrize(
    ("output", "message"),
    [
        (".", "has no name of its own"),
        ("/", "has no name of its own"),
        ("a/..", "has no name of its own"),
        ("x" * 300, "cannot be the name of a file"),
        ("ä" * 130, "cannot be the name of a file"),
        ("/proc/nowhere/o.safetensors", "cannot be written"),
        ("/proc/nowhere/out", "cannot be written"),
    ],
)
@pytest.mark.parametrize("overwrite", [False, True])
def test_places_that_cannot_be(pool, tmp_path, monkeypatch, output, message, overwrite):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(NegmergeError, match=message):
        merge_checkpoints(*pool, output, overwrite=overwrite)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["pool"]


ENDINGS = (
    "u.pt u.pth u.bin u.ckpt u.gguf u.onnx u.h5 u.npz u.pkl u.tar u.zip u.7z u.json u.txt u.pth.tar u.msgpack u.keras "
    "u.safetensor u.SAFETENSORS u.parquet u.tflite llama-3.2-1b.pt a/b/u.mlmodel u.xyz"
)
VERSIONS = (
    "llama-3.2-1b Qwen2.5 qwen2.5-7b-instruct model.v2 model.V10 run.2026-01-01 v1.0 gpt-j.unlearned a.b-c phi.3b"
)


@pytest.mark.parametrize("name", ENDINGS.split())
@pytest.mark.parametrize("overwrite", [False, True])
def test_the_ending_of_another_file_is_refused(merge, name, overwrite):
    run, place = merge
    with pytest.raises(InputError, match=r"OUT is one .safetensors file or a folder; give \S+/\S+.safetensors, or"):
        run(name, overwrite=overwrite)
    assert list(place.iterdir()) == []


def test_the_name_proposed_has_none_of_the_endings(merge):
    run, place = merge
    with pytest.raises(InputError) as caught:
        run("u-1.5.pth.tar")
    assert str(caught.value).endswith(f"give {place}/u-1.5.safetensors, or {place}/u-1.5 for a folder")


@pytest.mark.parametrize("name", VERSIONS.split())
def test_a_dot_in_the_name_of_a_folder(merge, name):
    run, place = merge
    run(name)
    assert (place / name / "model.safetensors").is_file()


@pytest.mark.parametrize("out", OUTS)
def test_folders_on_the_way_are_made_and_removed_again(merge, monkeypatch, out):
    run, place = merge
    (place / "old").mkdir()
    monkeypatch.chdir(place)

    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as broken:
        broken.setattr(os, "pwrite", full)
        for way in ("new/dir", "old/dir"):
            with pytest.raises(NegmergeError, match="No space left on device"):
                run(f"{way}/{out}")
            assert sorted(place.rglob("*")) == [place / "old"]
        broken.setattr(os, "pwrite", interrupted)
        with pytest.raises(KeyboardInterrupt):
            run(f"new/dir/{out}")
        assert sorted(place.rglob("*")) == [place / "old"]
    run(f"new/dir/{out}")
    assert verify_model(place / "new" / "dir" / out).count > 0


def interrupted(*_):
    raise KeyboardInterrupt


def test_what_others_put_into_a_folder_on_the_way_stays(merge, monkeypatch):
    run, place = merge

    def full(*_):
        (place / "new" / "theirs").write_text("x")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "pwrite", full)
    with pytest.raises(NegmergeError, match="No space left on device"):
        run("new/dir/o.safetensors")
    assert sorted(place.rglob("*")) == [place / "new", place / "new" / "theirs"]


def test_a_place_below_a_file_is_refused_before_the_work(pool, tmp_path):
    (tmp_path / "file").write_text("x")
    for name in ("file/o.safetensors", "file/out", "file/deep/out"):
        with pytest.raises(NegmergeError, match="cannot be written: Not a directory"):
            merge_checkpoints(*pool, tmp_path / name, on_event=lambda _: pytest.fail("work began"))


def test_a_file_in_the_folder_of_the_base_is_an_input(pool, tmp_path):
    """Weights that negmerge wrote may be replaced, but not while they are what is read."""
    base, members = pool
    merge_checkpoints(base, members, tmp_path / "model")
    before = content(tmp_path / "model")
    for name in ("model.safetensors", "other.safetensors"):
        with pytest.raises(InputError, match="is in the input"):
            merge_checkpoints(tmp_path / "model", members, tmp_path / "model" / name, overwrite=True)
    with pytest.raises(InputError, match="is the input"):
        merge_checkpoints(tmp_path / "model", members, tmp_path / "model", overwrite=True)
    (tmp_path / "link").symlink_to(tmp_path / "model")
    with pytest.raises(InputError, match="is the input"):
        merge_checkpoints(tmp_path / "link", members, tmp_path / "model", overwrite=True)
    assert content(tmp_path / "model") == before


def test_only_what_belongs_to_a_model_is_copied(pool, tmp_path):
    base, members = pool
    folder = tmp_path / "m"
    folder.mkdir()
    shutil.copy(base, folder / "model.safetensors")
    kept = ("config.json", "tokenizer.model", "merges.txt", "chat_template.jinja", "LICENSE")
    for name in (
        *kept,
        "training_args.bin",
        "data.parquet",
        "notes.md",
        "train.py",
        "x.gguf",
        ".hidden.json",
        "a.safetensors.index.json",
    ):
        (folder / name).write_text("{}")
    os.mkfifo(folder / "pipe.json")
    (folder / "folder.json").mkdir()
    (folder / "gone.json").symlink_to(tmp_path / "missing")
    merge_checkpoints(folder, members, tmp_path / "out")
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == sorted((*kept, "README.md", "model.safetensors"))


def test_names_that_are_no_text(pool, tmp_path):
    base, members = pool
    odd = tmp_path / os.fsdecode(b"odd\xff.safetensors")
    shutil.copy(members[0], odd)
    merge_checkpoints(base, [odd, members[1]], tmp_path / "o")
    assert "odd\ufffd.safetensors" in open_checkpoint(tmp_path / "o").metadata["negmerge"]


@pytest.mark.parametrize("out", ["out", "shards"])
@pytest.mark.parametrize("at", range(3))
def test_a_swap_of_folders_recovers_from_a_crash_at_each_rename(merge, monkeypatch, out, at):
    """Killed before the first rename, between the two, or before the old folder is gone."""
    run, place = merge
    run(out)
    old = content(place / out)
    run("other" if out == "out" else out, overwrite=out != "out", alpha=0.5)
    new = content(place / ("other" if out == "out" else out))
    if out == "out":
        shutil.rmtree(place / "other")
    else:
        run(out, overwrite=True)
    assert old != new and content(place / out) == old
    pid = os.fork()
    if pid == 0:
        kill_at_rename(at, place / out)
        run(out, overwrite=True, alpha=0.5)
        os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 77
    assert (place / out).exists() == (at != 1)
    recover_folder(place / out)
    assert content(place / out) == (new if at == 2 else old)
    run(out, overwrite=True, alpha=0.5)
    assert content(place / out) == new and [path.name for path in place.iterdir()] == [out]


def kill_at_rename(at, output):
    """Let this process end, without any cleaning up, at the rename of OUT with that number, or after both."""
    import pathlib

    rename, done = pathlib.Path.rename, []

    def dying(self, target):
        if output in (self, pathlib.Path(target)):
            if len(done) == at:
                os._exit(77)
            done.append(target)
        return rename(self, target)

    def dying_later(*_, **__):
        os._exit(77)

    pathlib.Path.rename = dying
    if at == 2:
        shutil.rmtree = dying_later


def test_reports_are_tables_in_notebooks(pool, tmp_path):
    out = tmp_path / "<o>.safetensors"
    done, found = merge_checkpoints(pool[0], pool[1], out, alpha=0.5), inspect_checkpoints(pool[0], pool[1])
    shown = done._repr_html_()
    assert "<o>" not in shown and f"&lt;o&gt;.safetensors: consensus of {len(pool[1])} member(s), α = 0.5" in shown
    assert f"<tr><td>kept</td><td>{done.common_kept:,} of {done.common_elements:,} elements" in shown
    assert f"<td>consensus</td><td>{100 * found.consensus:.2f} %" in found._repr_html_()


def test_a_folder_of_the_user_beside_out_is_left_alone(tmp_path):
    """`.NAME.old` is a name that people give; only what a swap of ours puts aside is finished or removed."""
    mine = tmp_path / ".out.old"
    mine.mkdir()
    (mine / "notes.txt").write_text("kept")
    recover_folder(tmp_path / "out")
    assert not (tmp_path / "out").exists()
    (tmp_path / "out").mkdir()
    recover_folder(tmp_path / "out")
    assert (mine / "notes.txt").read_text() == "kept"
