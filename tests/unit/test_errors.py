import errno

import pytest

from blockwright import errors
from blockwright.errors import (
    BlockwrightError,
    Corrupt,
    FormatError,
    InUse,
    KernelError,
    NotFound,
    ObjectNotFound,
    StoreError,
    Throttled,
    Unavailable,
    UsageError,
)

CLASSES = [value for value in vars(errors).values() if isinstance(value, type) and issubclass(value, Exception)]


@pytest.mark.parametrize("kind", CLASSES, ids=lambda kind: kind.__name__)
def test_every_error_says_what_the_command_exits_with_and_what_nbd_is_told(kind):
    assert issubclass(kind, BlockwrightError)
    assert kind.exit_code in (1, 2, 3, 4, 5)
    assert kind.nbd_errno in errno.errorcode
    assert kind.__doc__


@pytest.mark.parametrize(
    ("name", "exit_code", "number"),
    [
        ("UsageError", 2, errno.EINVAL),
        ("OutOfRange", 2, errno.EINVAL),
        ("ReadOnly", 2, errno.EPERM),
        ("Closed", 2, errno.ESHUTDOWN),
        ("Misaligned", 2, errno.EINVAL),
        ("NotSupported", 2, errno.ENOTSUP),
        ("InUse", 1, errno.EBUSY),
        ("NotFound", 5, errno.ENOENT),
        ("NoSpace", 1, errno.ENOSPC),
        ("Corrupt", 1, errno.EIO),
        ("Unsupported", 1, errno.ENOTSUP),
        ("IntegrityError", 1, errno.EIO),
        ("SourceChanged", 1, errno.EIO),
        ("ObjectNotFound", 5, errno.ENOENT),
        ("KernelError", 1, errno.EIO),
        ("Unavailable", 4, errno.EPERM),
        ("Refused", 4, errno.EPERM),
        ("ConnectionLost", 1, errno.EIO),
        ("Cancelled", 1, errno.ESHUTDOWN),
    ],
)
def test_codes(name, exit_code, number):
    kind = getattr(errors, name)
    assert (kind.exit_code, kind.nbd_errno) == (exit_code, number)


def test_kinds_that_callers_catch():
    assert issubclass(UsageError, ValueError)
    assert issubclass(InUse, UsageError)
    assert issubclass(KernelError, OSError)
    assert issubclass(ObjectNotFound, NotFound)
    assert issubclass(ObjectNotFound, StoreError)
    assert not issubclass(FormatError, ValueError)


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({}, "magic: expected 1, found 2"),
        ({"source": "a.img"}, "a.img: magic: expected 1, found 2"),
        ({"offset": 0}, "magic: expected 1, found 2 (byte 0)"),
        ({"spec": "UEFI 2.10 5.3.2"}, "magic: expected 1, found 2 (UEFI 2.10 5.3.2)"),
        (
            {"source": "a.img", "offset": 512, "spec": "UEFI 2.10 5.3.2"},
            "a.img: magic: expected 1, found 2 (byte 512; UEFI 2.10 5.3.2)",
        ),
    ],
)
def test_a_format_error_says_where(fields, text):
    error = Corrupt("magic: expected 1, found 2", **fields)
    assert str(error) == text
    assert (error.source, error.offset, error.spec) == (
        fields.get("source"),
        fields.get("offset"),
        fields.get("spec"),
    )


def test_a_source_can_be_added_on_the_way_up():
    error = FormatError("x: wrong", offset=5)
    error.source = "disk.img"
    assert str(error) == "disk.img: x: wrong (byte 5)"


def test_a_kernel_error_is_an_os_error_with_its_number():
    error = KernelError("LOOP_CONFIGURE", "/dev/loop0", errno.EPERM, "needs CAP_SYS_ADMIN")
    assert str(error) == "/dev/loop0: LOOP_CONFIGURE: needs CAP_SYS_ADMIN"
    assert error.errno == errno.EPERM
    assert (error.operation, error.device, error.remedy) == ("LOOP_CONFIGURE", "/dev/loop0", "")


def test_a_kernel_error_says_what_to_do_where_that_is_certain():
    error = Unavailable("open", "/dev/loop-control", errno.ENOENT, "no such file", remedy="modprobe loop")
    assert str(error) == "/dev/loop-control: open: no such file: modprobe loop"
    assert error.remedy == "modprobe loop"
    assert isinstance(error, KernelError)


def test_store_errors_say_whether_to_try_again():
    assert StoreError("x").permanent
    assert not StoreError("x", permanent=False).permanent
    assert not Throttled("x").permanent
