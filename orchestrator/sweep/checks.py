"""What ``peft-sweep doctor`` looks at: the machine, Ray, the storage and MLflow, one check each."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from orchestrator.common.errors import InputError, SweepError, describe_error
from orchestrator.common.package_versions import PACKAGES, versions
from orchestrator.common.storage import Storage
from orchestrator.common.storage_check import nearest_existing
from orchestrator.common.units import parse_bytes, size
from orchestrator.common.uris import mask_secrets, masked_first_line

MIN_FREE = parse_bytes("10GB")
"""Free space that a sweep with a small backbone and its checkpoints may need, in bytes."""
MIN_SHARED_MEMORY = parse_bytes("1GB")
"""Shared memory for Ray's object store, in bytes; with less, Ray uses slow files."""
Result = Literal["ok", "warning", "fault"]


@dataclass(frozen=True)
class Check:
    """The result of one check.

    Args:
        name: what was checked.
        result: ``ok``, ``warning`` where a sweep works but something is missing, or ``fault`` where it would not run.
        detail: what was found.
        mend: what to do; empty where nothing is wrong.
    """

    name: str
    result: Result
    detail: str
    mend: str = ""


def checks(storage: str, tracking_uri: str, address: str | None) -> Iterator[Check]:
    """Yield the results, one after the other.

    Args:
        storage: ``storage`` of the configuration.
        tracking_uri: ``mlflow.tracking_uri`` of the configuration.
        address: Ray cluster to run on; ``None`` for this machine.
    """
    each: tuple[tuple[str, Callable[[], Check]], ...] = (
        ("packages", check_packages),
        ("gpu", check_gpus),
        ("ray", lambda: check_ray(address)),
        ("storage", lambda: check_storage(storage)),
        ("mlflow", lambda: check_tracking(tracking_uri)),
        ("space", lambda: check_space(storage)),
        ("memory", check_shared_memory),
        ("paths", check_temporary_folder),
        ("encoding", check_encoding),
    )
    for name, check in each:
        try:
            yield check()
        except Exception as error:  # a check that fails is a result too
            yield Check(name, "fault", mask_secrets(describe_error(error)), "mend this first")


def check_packages() -> Check:
    """Check that every package is installed."""
    installed = versions()
    missing = [name for name in PACKAGES if name not in installed]
    detail = ", ".join(f"{name} {version}" for name, version in installed.items())
    if missing:
        return Check(
            "packages", "fault", f"{detail}; missing: {', '.join(missing)}", "install peft-sweep with pip again"
        )
    return Check("packages", "ok", detail)


def check_gpus() -> Check:
    """Check whether torch sees the GPUs that the driver of this machine shows."""
    import torch

    if torch.cuda.is_available():
        names = [torch.cuda.get_device_properties(index) for index in range(torch.cuda.device_count())]
        return Check("gpu", "ok", ", ".join(f"{gpu.name} ({size(gpu.total_memory)})" for gpu in names))
    if shutil.which("nvidia-smi"):
        detail = f"nvidia-smi is there, and torch {torch.__version__} sees no GPU"
        return Check("gpu", "fault", detail, "install a torch for CUDA, and look at CUDA_VISIBLE_DEVICES")
    return Check("gpu", "ok", "none; sweeps compute on the processor")


def check_ray(address: str | None) -> Check:
    """Check that the cluster answers, or that this machine can start one."""
    from orchestrator.lanes.cluster import Cluster, node_resources

    cluster = Cluster(address)
    try:
        with cluster:
            cluster.wait_until_connected()
            nodes = node_resources()
            cluster.disconnect()
    except (InputError, SweepError) as error:
        lines = error.lines() if isinstance(error, InputError) else [str(error)]
        return Check("ray", "fault", "; ".join(lines), "start the cluster, or leave --address out for this machine")
    cpus, gpus = (sum(node.get(kind, 0) for node in nodes.values()) for kind in ("CPU", "GPU"))
    where = f"cluster at {cluster.address}" if cluster.address else "this machine"
    return Check("ray", "ok", f"{where}: nodes {len(nodes)}, CPU {cpus:g}, GPU {gpus:g}")


def check_storage(storage: str) -> Check:
    """Check that a file can be written to the storage, read and deleted."""
    name, content = f"doctor-{uuid.uuid4().hex}", b"peft-sweep"
    try:
        place = Storage.at(storage)
        if place.is_local:
            with tempfile.TemporaryFile(dir=nearest_existing(Path(place.root))) as file:
                file.write(content)
            return Check("storage", "ok", f"{place.root} can be written")
        place.write(name, content)
        same = place.read(name) == content
        place.delete(name)
    except (OSError, ValueError, InputError) as error:
        mend = "check the path or URI, and the credentials in the environment"
        return Check("storage", "fault", f"{mask_secrets(storage)}: {masked_first_line(error)}", mend)
    if not same:
        return Check("storage", "fault", f"{mask_secrets(storage)} gives back other bytes", "use another storage")
    return Check("storage", "ok", f"{mask_secrets(place.root)} can be written, read and deleted from")


def check_tracking(tracking_uri: str) -> Check:
    """Check that MLflow answers; a database that does not exist yet is not made."""
    from orchestrator.tracking.connection import (
        check_uri,
        database_file,
        is_database_server,
        open_client,
    )

    shown = mask_secrets(tracking_uri)
    try:
        check_uri(tracking_uri, "mlflow.tracking_uri")
        file = database_file(tracking_uri)
        if file is not None and not file.exists():
            writable = os.access(file.parent, os.W_OK)
            detail = f"{shown} {'will be made by the first sweep' if writable else f'cannot be made in {file.parent}'}"
            return Check("mlflow", "ok" if writable else "fault", detail, "" if writable else "choose another folder")
        open_client(tracking_uri).search_experiments(max_results=1)
    except InputError as error:
        return Check("mlflow", "fault", "; ".join(error.lines()), "write mlflow.tracking_uri anew")
    except Exception as error:  # of the server, of its database, of the network
        if is_database_server(tracking_uri):
            mend = "start the database, or correct its address, user and password in mlflow.tracking_uri"
        else:
            mend = "start the server, or set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD if it asks for them"
        return Check("mlflow", "fault", f"{shown}: {masked_first_line(error)}", mend)
    return Check("mlflow", "ok", f"{shown} answers")


def check_space(storage: str) -> Check:
    """Check the free space of the storage, where that is a folder, and of this machine's cache of backbones."""
    from orchestrator.backbone.store import cache_folder

    place = Storage.at(storage)
    folders = {"cache": cache_folder(), **({"storage": Path(place.root)} if place.is_local else {})}
    free = {name: shutil.disk_usage(nearest_existing(folder)).free for name, folder in folders.items()}
    detail = ", ".join(f"{name} {size(count)} free ({folders[name]})" for name, count in free.items())
    if min(free.values()) < MIN_FREE:
        mend = f"keep {size(MIN_FREE)} free, or more for a large backbone; PEFT_SWEEP_CACHE moves the cache"
        return Check("space", "warning", detail, mend)
    return Check("space", "ok", detail)


def check_shared_memory() -> Check:
    """Check the memory of the machine, and what of it processes can share."""
    import psutil

    detail = f"{size(psutil.virtual_memory().available)} of {size(psutil.virtual_memory().total)} available"
    shared = Path("/dev/shm")  # is looked at only
    if not shared.is_dir():
        return Check("memory", "ok", detail)
    free = shutil.disk_usage(shared).free
    detail = f"{detail}, {size(free)} free in {shared}"
    if free < MIN_SHARED_MEMORY:
        return Check("memory", "warning", detail, f"give {shared} more, in a container with --shm-size 8g")
    return Check("memory", "ok", detail)


def check_temporary_folder() -> Check:
    """Check the length of the path of temporary files, in which Ray makes its sockets."""
    from orchestrator.lanes.cluster import require_short_paths

    try:
        require_short_paths()
    except InputError as error:
        detail, _, mend = error.lines()[0].partition("; ")
        return Check("paths", "fault", detail, mend)
    return Check("paths", "ok", f"temporary files are in {tempfile.gettempdir()}")


def check_encoding() -> Check:
    """Check whether the terminal can show what is printed."""
    encoding = sys.stdout.encoding or "ascii"
    try:
        "· ━ é".encode(encoding)
    except UnicodeEncodeError:
        mend = "set PYTHONIOENCODING=utf-8, or a locale such as LC_ALL=C.UTF-8"
        return Check("encoding", "warning", f"the terminal takes {encoding} only", mend)
    return Check("encoding", "ok", encoding)
