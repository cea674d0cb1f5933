"""NVIDIA's GPUs, found without their libraries: by what the driver shows in /proc, else by `nvidia-smi`."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, MutableMapping, Sequence

PROC_DIR = "/proc/driver/nvidia/gpus"  # one directory for each GPU; in a container, for each that it was given
# nvidia-smi starts the driver if nothing has, which takes seconds on a machine with eight GPUs.
SMI_TIMEOUT_S = 10.0
ACCELERATOR_LABEL = "umbel.io/accelerator-type"

_MODEL = re.compile(r"^Model:\s*(.+?)\s*$", re.MULTILINE)
_SMI_LINE = re.compile(r"^GPU \d+: (.+?)(?: \(UUID: .*\))?\s*$", re.MULTILINE)
_MAKER = re.compile(r"^(?:NVIDIA|Tesla|GeForce|Quadro)\s+")
_FAMILIES = ("RTX", "GTX", "TITAN")  # of little meaning without what follows: RTX 4090, RTX PRO 6000


class NvidiaManager:
    """See `spi.AcceleratorManager`."""

    resource_name = "GPU"
    visible_devices_variable = "CUDA_VISIBLE_DEVICES"

    def __init__(self, *, proc_dir: str = PROC_DIR, environment: MutableMapping[str, str] | None = None) -> None:
        """environment: the variables read and set, PATH for nvidia-smi among them; None for this process's own."""
        self._proc_dir = proc_dir
        self._environment = os.environ if environment is None else environment
        self._models: list[str] | None = None

    def detect_count(self) -> int:
        return len(self._found())

    def detect_type(self) -> str | None:
        models = self._found()
        return short_name(models[0]) if models else None

    def labels(self) -> Mapping[str, str]:
        model = self.detect_type()
        return {ACCELERATOR_LABEL: model} if model else {}

    def extra_resources(self) -> Mapping[str, float]:
        return {}

    def validate_quantity(self, quantity: float) -> str | None:
        if quantity > 1 and quantity != int(quantity):
            return f"num_gpus above 1 must be a whole number, got {quantity!r}; only a share of one can be a fraction"
        return None

    def get_visible_ids(self) -> list[str] | None:
        text = self._environment.get(self.visible_devices_variable)
        if text is None:
            return None
        ids: list[str] = []
        for one in (part.strip() for part in text.split(",")):
            if one in ("", "NoDevFiles") or one.startswith("-"):
                break  # as CUDA reads it: what follows an invalid id is not visible either
            ids.append(one)
        return ids

    def set_visible_ids(self, ids: Sequence[str]) -> None:
        self._environment[self.visible_devices_variable] = ",".join(ids)

    def _found(self) -> list[str]:
        """The models, in the driver's order."""
        if self._models is None:
            self._models = self._from_proc()
            if self._models is None:
                self._models = self._from_smi()
        return self._models

    def _from_proc(self) -> list[str] | None:
        """None when the driver shows nothing here, as under WSL."""
        try:
            names = sorted(os.listdir(self._proc_dir))
        except OSError:
            return None
        models = []
        for name in names:
            try:
                with open(os.path.join(self._proc_dir, name, "information")) as file:
                    found = _MODEL.search(file.read())
            except OSError:
                continue  # a GPU that was just taken away
            models.append(found.group(1) if found else "")
        return models

    def _from_smi(self) -> list[str]:
        command = self._smi()
        if command is None:
            return []
        import subprocess

        try:
            listed = subprocess.run(
                [command, "-L"],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=SMI_TIMEOUT_S,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired):
            return []  # a driver that does not answer has no GPU to lend
        return _SMI_LINE.findall(listed.stdout) if listed.returncode == 0 else []

    def _smi(self) -> str | None:
        """Its path, looked for without shutil, which takes longer to import than all the rest."""
        paths = [
            os.path.join(directory, "nvidia-smi")
            for directory in self._environment.get("PATH", os.defpath).split(os.pathsep)
            if directory
        ]
        return next((path for path in paths if os.access(path, os.X_OK)), None)


def short_name(model: str) -> str | None:
    """ "A100" for "NVIDIA A100-SXM4-40GB", "RTX-4090" for "NVIDIA GeForce RTX 4090"; None when it is not known."""
    rest = model.strip()
    while _MAKER.match(rest):
        rest = _MAKER.sub("", rest)
    words = rest.split()
    if not words or words[0] == "Unknown":
        return None
    if words[0] in _FAMILIES:
        return "-".join(words[:3] if words[1:2] == ["PRO"] else words[:2])
    return words[0].partition("-")[0]
