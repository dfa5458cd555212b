"""PyTorch's files against torch.load, which reads them by other means, and the pickles that must be refused."""

import io
import pickle
import zipfile
from collections import Counter, OrderedDict

import pytest
import torch

from negmerge.checkpoints import open_checkpoint, read_state_dict
from negmerge.errors import InputError
from pools import make_state

wide = torch.arange(24.0).reshape(4, 6)
STATES = {
    "everything": lambda: make_state(0),
    "module": lambda: torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4)).state_dict(),
    "parameters": lambda: dict(torch.nn.Linear(3, 4).named_parameters()),
    "attributes": lambda: {"a": tagged(torch.ones(3)), "p": tagged(torch.nn.Parameter(torch.ones(3)))},
    "transposed": lambda: {"a": wide.T, "b": wide.reshape(2, 2, 6).permute(2, 0, 1), "c": wide[None].transpose(1, 2)},
    "views": lambda: {"a": wide[1:3], "b": wide[:, 2:4], "c": wide.flatten()[5:9], "d": wide, "e": wide[0, 0]},
    "expanded": lambda: {"a": torch.ones(3, 1).expand(3, 4), "b": torch.ones(1).expand(5), "c": wide[None, :, None]},
    "unsigned": lambda: {"a": torch.arange(5).to(torch.uint16), "b": torch.ones(2, dtype=torch.uint64)},
    "complex": lambda: {"a": torch.ones(2, dtype=torch.complex64)},
    "empty": lambda: {"a": torch.empty(0, 3), "b": torch.empty(2, 0).T, "c": torch.tensor(1.5)},
    "beside": lambda: {
        "state_dict": OrderedDict(w=wide),
        "optimizer": {"state": {0: {"step": torch.tensor(3)}}, "groups": [{"lr": 1e-3, "betas": (0.9, 0.999)}]},
        "epoch": 2**70, "best": float("inf"), "seen": {1, 2}, "count": Counter("abca"), "raw": b"\0\1", "z": 1j,
        "size": torch.Size([1, 2]), "device": torch.device("cpu"), "dtype": torch.bfloat16, "none": None, "yes": True,
    },
}  # fmt: skip


def tagged(tensor):
    tensor.origin = "here"
    return tensor


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize("case", STATES)
def test_what_torch_reads_is_read_alike(tmp_path, case, protocol, zipped):
    path = tmp_path / "x.pt"
    if case == "unsigned" and not zipped:
        pytest.skip("torch writes these dtypes to archives only")
    torch.save(STATES[case](), path, pickle_protocol=protocol, _use_new_zipfile_serialization=zipped)
    expected = torch.load(path, weights_only=False)
    expected = expected.get("state_dict", expected)
    checkpoint = open_checkpoint(path)
    assert checkpoint.names == tuple(expected)
    for name, value in expected.items():
        assert checkpoint.shape(name) == tuple(value.shape) and checkpoint.dtype(name).torch == value.dtype
        flat = value.detach().contiguous().reshape(-1)
        assert torch.equal(checkpoint.read(name), flat)
        for start in range(0, len(flat), 5):
            assert torch.equal(checkpoint.read(name, start, min(start + 5, len(flat))), flat[start : start + 5]), name
        assert (checkpoint.locate(name) is None) == (value.numel() > 0 and not value.is_contiguous())
    checkpoint.close()


def test_tied_names_are_those_that_show_the_same_elements(tmp_path):
    torch.save({"a": wide, "b": wide, "c": wide.T, "d": wide.clone(), "e": wide[:2], "f": wide.T}, tmp_path / "x.pt")
    assert open_checkpoint(tmp_path / "x.pt").tied == {"b": "a", "f": "c"}


def test_only_what_is_asked_for_is_read(tmp_path):
    """A hole of a hundred gigabytes in a file costs nothing."""
    torch.save({"a": torch.ones(4), "b": torch.ones(4)}, tmp_path / "x.pt", _use_new_zipfile_serialization=False)
    data = (tmp_path / "x.pt").read_bytes()
    grown = 10**11
    data = data.replace(b"K\x04N", b"\x8a\x05" + grown.to_bytes(5, "little") + b"N").replace(
        b"K\x04\x85", b"\x8a\x05" + grown.to_bytes(5, "little") + b"\x85"
    )
    head = data[: data.index((4).to_bytes(8, "little"))]
    with (tmp_path / "big.pt").open("wb") as file:
        for _ in range(2):
            file.write(head + grown.to_bytes(8, "little"))
            file.seek(4 * grown, 1)
            head = b""
        file.truncate(file.tell())
    checkpoint = open_checkpoint(tmp_path / "big.pt")
    assert checkpoint.shape("b") == (grown,)
    assert checkpoint.read("b", grown - 3, grown).tolist() == [0.0, 0.0, 0.0]


class Opens:
    def __reduce__(self):
        return open, ("/etc/passwd",)


def pickled(*values, **more):
    return b"".join(pickle.dumps(value, protocol=2, **more) for value in values)


def begun(*rest):
    return pickled(0x1950A86A20F9469CFC6C, 1001, {"little_endian": True}) + b"".join(rest)


def zipped(parts, **how):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", **how) as archive:
        for name, data in parts:
            archive.writestr(name, data)
    return file.getvalue()


ITSELF = b"\x80\x02}q\x00X\x05\x00\x00\x00modelh\x00s."  # d = {}; d["model"] = d
NESTED = b"\x80\x02}K\x01" + b"".join(b"2\x86" for _ in range(200)) + b"K\x01s."  # a key whose hash would take forever
HOSTILE = {
    "opens a file": (zipped([("a/data.pkl", pickled(Opens()))]), "would execute code when loaded"),
    "opens, old": (begun(pickled({"a": Opens()})), "would execute code when loaded"),
    "in itself": (zipped([("a/data.pkl", ITSELF)]), "model is not a tensor"),
    "endless hash": (zipped([("a/data.pkl", NESTED)]), "a key that is a object is not a tensor"),
    "large key": (zipped([("a/data.pkl", pickled({10**5000: 1}))]), "a key that is a int is not a tensor"),
    "no end": (zipped([("a/data.pkl", b"\x80\x02}")]), "not a whole PyTorch file"),
    "no mark": (zipped([("a/data.pkl", b"\x80\x02}u.")]), "not a whole PyTorch file: no mark"),
    "long text": (zipped([("a/data.pkl", b"\x80\x02\x8d" + b"\xff" * 7 + b"\0.")]), "not a whole PyTorch file"),
    "large array": (zipped([("a/data.pkl", b"\x80\x05\x96" + b"\xff" * 6 + b"\0\0.")]), "not a whole PyTorch file"),
    "memo": (zipped([("a/data.pkl", b"\x80\x02}r\xff\xff\xff\xff.")]), "holds no state dict"),
    "compressed": (
        zipped([("a/data.pkl", b"N" * 10**6)], compression=zipfile.ZIP_DEFLATED),
        "is compressed or encrypted",
    ),
    "program": (zipped([("a/data.pkl", b""), ("a/constants.pkl", b"")]), "holds a TorchScript program"),
    "byte order": (zipped([("a/data.pkl", b""), ("a/byteorder", b"big")]), "numbers in another byte order"),
    "old byte order": (pickled(0x1950A86A20F9469CFC6C, 1001, {"little_endian": False}), "in another byte order"),
    "no pickle": (zipped([("a/b", b"")]), "its archive has no data.pkl"),
    "no archive": (b"PK\3\4" + bytes(100), "its archive cannot be read"),
    "a tar": (b"sys_info\0" + bytes(600), "not a whole PyTorch file"),
    "another pickle": (pickled({"a": 1}), "it does not begin like one"),
    "no storages": (begun(pickled({"a": 1}), pickled({})), "it lists no storages"),
    "strange storage": (begun(pickled({"a": 1}), pickled(["0"]), bytes(8)), "its storage 0 is not the one described"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_files_are_refused(tmp_path, case):
    data, message = HOSTILE[case]
    (tmp_path / "x.pt").write_bytes(data)
    with pytest.raises(InputError, match=message) as caught:
        open_checkpoint(tmp_path / "x.pt")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("state", "message"),
    [
        (
            lambda: {"a": torch.ones(2, 2).to_sparse()},
            r"tensors of another layout \(torch._utils._rebuild_sparse_tensor",
        ),
        (lambda: {"a": torch.quantize_per_tensor(torch.ones(2), 0.1, 0, torch.qint8)}, "holds quantised tensors"),
        (lambda: {"a": torch.ones(2, dtype=torch.complex128)}, "dtype complex128, which is not supported"),
        (lambda: {"a": torch.ones(1).expand(10**9)}, "1,000,000,000 elements show 1 stored ones"),
        (lambda: {"a": torch.nn.Linear(1, 1)}, "would execute code when loaded"),
    ],
)
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("zipped", [True, False])
def test_tensors_that_are_not_plain_are_refused(tmp_path, state, message, zipped):
    torch.save(state(), tmp_path / "x.pt", _use_new_zipfile_serialization=zipped)
    with pytest.raises(InputError, match=message):
        read_state_dict(tmp_path / "x.pt")


def test_a_tensor_beyond_its_storage_is_refused(tmp_path):
    torch.save({"a": torch.ones(7)}, tmp_path / "x.pt")
    data = (tmp_path / "x.pt").read_bytes()
    assert data.count(b"K\x07\x85") == 1
    (tmp_path / "x.pt").write_bytes(data.replace(b"K\x07\x85", b"K\x08\x85"))
    with pytest.raises(InputError, match="tensor a goes beyond its storage"):
        open_checkpoint(tmp_path / "x.pt")
