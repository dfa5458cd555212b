"""Signing a folder: checked here, and by model-signing alone."""

import subprocess
import sys

import pytest

from negmerge.errors import InputError
from negmerge.record import signing

pytest.importorskip("model_signing", reason="signatures need the extra sign: pip install 'negmerge[sign]'")
cryptography = pytest.importorskip("cryptography")


def write_pair(folder, name="key", curve="SECP256R1"):
    from cryptography.hazmat.primitives.asymmetric import ec, rsa
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

    key = rsa.generate_private_key(65537, 2048) if curve == "RSA" else ec.generate_private_key(getattr(ec, curve)())
    private, public = folder / f"{name}.pem", folder / f"{name}.pub"
    private.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    public.write_bytes(key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    return private, public


@pytest.fixture
def signed(tmp_path):
    place = tmp_path / "model"
    (place / "sub").mkdir(parents=True)
    (place / "model.safetensors").write_bytes(b"weights")
    (place / "sub" / "vocab.txt").write_bytes(b"words")
    private, public = write_pair(tmp_path)
    assert signing.sign_folder(place, private) == place / "model.sig"
    return place, private, public


def test_a_signature_holds_and_model_signing_alone_says_so(signed):
    place, _, public = signed
    signing.verify_signature(place, public)
    assert {path.name for path in place.iterdir()} == {"model.safetensors", "sub", "model.sig"}
    words = ["verify", "key", ".", "--signature", "model.sig", "--public_key", str(public)]
    done = subprocess.run([sys.executable, "-m", "model_signing", *words], cwd=place, capture_output=True, text=True)
    assert done.returncode == 0 and "Verification succeeded" in done.stdout


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda place: (place / "sub" / "vocab.txt").write_bytes(b"Words"), "does not hold: changed: sub/vocab.txt"),
        (lambda place: (place / "sub" / "vocab.txt").unlink(), "does not hold: Missing files"),
        (lambda place: (place / ".gitignore").write_bytes(b""), "does not hold: Extra files.*.gitignore"),
        (lambda place: (place / "model.sig").unlink(), "has no model.sig: it is not signed"),
        (lambda place: (place / "model.sig").write_text("{}"), "the signature does not hold"),
    ],
)
def test_what_changed_since_is_named(signed, change, words):
    place, _, public = signed
    change(place)
    with pytest.raises(InputError, match=words):
        signing.verify_signature(place, public)


def test_another_key_does_not_fit_and_what_is_no_key_is_refused(signed, tmp_path):
    place, private, public = signed
    _, other = write_pair(tmp_path, "other")
    with pytest.raises(InputError, match="the signature does not hold: Key mismatch"):
        signing.verify_signature(place, other)
    rsa, _ = write_pair(tmp_path, "rsa", "RSA")
    for wrong in (rsa, public):
        with pytest.raises(InputError, match=r"is no private key that can be used .*openssl ecparam"):
            signing.check_key(wrong)
    with pytest.raises(InputError, match=r"gone\.pem: No such file or directory; give the private key as a PEM file"):
        signing.check_key(tmp_path / "gone.pem")
    with pytest.raises(InputError, match="is no public key that can be used"):
        signing.verify_signature(place, private)
    (tmp_path / "big").mkdir()
    signing.sign_folder(place, write_pair(tmp_path / "big", curve="SECP384R1")[0])  # a second signature takes its place
    signing.verify_signature(place, tmp_path / "big" / "key.pub")
