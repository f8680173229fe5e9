"""What a check of the doctor finds."""

from collections.abc import Iterator

from jobs.doctor.finding import Finding
from jobs.options.batch import DoctorOptions

DOCTOR = DoctorOptions()


def only(findings: Iterator[Finding]) -> Finding:
    [finding] = findings
    return finding
