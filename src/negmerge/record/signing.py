"""Signing a folder with the OpenSSF's model-signing, and checking the signature; both work without a network."""

import contextlib
import logging
import os
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from negmerge.checkpoints.atomic import partial_path
from negmerge.errors import InputError, shortened
from negmerge.record.statement import SIGNATURE

NEEDED = "signatures need the packages model-signing and pyopenssl: pip install 'negmerge[sign]'"


def check_key(key: Path) -> None:
    """Raise InputError unless a file holds a private key on an elliptic curve that can sign, without a password."""
    with reading(key, "private"):
        _signer(key)


def sign_folder(folder: Path, key: Path) -> Path:
    """Sign every file of a folder with a private key, PEM, on an elliptic curve (P-256, P-384, P-521).

    The signature is a Sigstore bundle, `model.sig` in the folder: an in-toto statement on the SHA-256 of each file,
    which `model_signing verify key` reads as well. Written whole or not at all. No two signatures have the same bytes.

    Raises InputError for a key that cannot be read, and where model-signing is not installed.
    """
    with reading(key, "private"):
        signer = _signer(key)
    target = folder / SIGNATURE
    partial = partial_path(target)
    partial.unlink(missing_ok=True)  # of a process that was killed
    signer.set_hashing_config(_all_but_signature()).sign(folder, partial)
    with partial.open("rb") as file:
        os.fsync(file.fileno())
    partial.replace(target)
    return target


def is_signed_by(folder: Path, key: Path) -> bool:
    """Whether a folder has a signature that holds, made with this private key.

    Raises InputError for a key that cannot be read, and where model-signing is not installed.
    """
    if not (folder / SIGNATURE).is_file():
        return False
    _modules()
    from cryptography.hazmat.primitives import serialization

    with reading(key, "private"):
        public = serialization.load_pem_private_key(key.read_bytes(), None).public_key()
        form = serialization.PublicFormat.SubjectPublicKeyInfo
        written = public.public_bytes(serialization.Encoding.PEM, form)
    with tempfile.TemporaryDirectory() as scratch:
        file = Path(scratch) / "key.pub"
        file.write_bytes(written)
        try:
            verify_signature(folder, file)
        except InputError:
            return False
    return True


def verify_signature(folder: Path, key: Path) -> None:
    """Compare the files of a folder with its signature, by a public key.

    Raises InputError where there is no signature, where it is by another key, and where any file was changed, is
    missing or was added since.
    """
    verifying = _modules()[2]
    signature = folder / SIGNATURE
    if not signature.is_file():
        raise InputError(f"{folder} has no {SIGNATURE}: it is not signed; leave --public-key out to check the hashes")
    with reading(key, "public"):
        config = verifying.Config().use_elliptic_key_verifier(public_key=key)
    try:
        with _silent():
            config.set_hashing_config(_all_but_signature()).verify(folder, signature)
    except Exception as error:  # ValueError, and what sigstore and cryptography raise of a damaged bundle
        raise InputError(f"{folder}: the signature does not hold: {_reason(error)}") from None


def _reason(error: Exception) -> str:
    """Return what is wrong in words; digests, which model-signing prints as bytes, are left out."""
    text = " ".join(str(error).replace("\\'", "'").split()) or type(error).__name__
    changed = sorted(re.findall("Hash mismatch for '([^']*)'", text))
    others = re.findall("((?:Extra|Missing) files [^\"']*'[^']*': [^\"]*)", text)
    found = [*([f"changed: {shortened(changed)}"] if changed else []), *others]
    return "; ".join(found) or text[:300]


@contextlib.contextmanager
def reading(key: Path, kind: str) -> Iterator[None]:
    """Turn what is raised of a key into one line."""
    try:
        yield
    except InputError:
        raise
    except OSError as error:
        raise InputError(f"{key}: {error.strerror or error}; give the {kind} key as a PEM file") from None
    except Exception as error:  # whatever cryptography raises
        why = " ".join(str(error).split())[:200]
        raise InputError(
            f"{key} is no {kind} key that can be used ({why}); make a pair with `openssl ecparam -name prime256v1 "
            "-genkey -noout -out key.pem` and `openssl ec -in key.pem -pubout -out key.pub`"
        ) from None


def _signer(key: Path) -> Any:
    key.read_bytes()
    return _modules()[1].Config().use_elliptic_key_signer(private_key=key)


def _all_but_signature() -> Any:
    hashing = _modules()[0]
    return hashing.Config().set_ignored_paths(paths=[SIGNATURE], ignore_git_paths=False)


def _modules() -> tuple[Any, Any, Any]:
    """Return hashing, signing and verifying of model-signing. Raises InputError where it is not installed."""
    try:
        from model_signing import hashing, signing, verifying
    except ImportError as error:
        raise InputError(f"{NEEDED} ({error.name or error} is missing)") from None
    return hashing, signing, verifying


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        yield
    finally:
        logging.disable(before)
