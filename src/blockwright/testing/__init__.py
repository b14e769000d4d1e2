"""What an implementer of a device needs for tests: a conformance check, and devices that fail, crash and record.

Needs no test framework: what is wrong is a ``Violation``, an AssertionError whose message says how to replay it.
"""

from blockwright.testing.crash import CrashDevice
from blockwright.testing.device import check_device
from blockwright.testing.fault import FaultDevice
from blockwright.testing.model import Violation
from blockwright.testing.recording import Call, RecordingDevice

__all__ = ["Call", "CrashDevice", "FaultDevice", "RecordingDevice", "Violation", "check_device"]
