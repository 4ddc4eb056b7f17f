"""An S3 server on this machine, which can go away and come back with all that it had."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

import boto3
import pytest
from moto.s3.models import s3_backends
from moto.server import ThreadedMotoServer

BUCKET = "bucket"
ENVIRONMENT = {
    "AWS_ACCESS_KEY_ID": "test",
    "AWS_SECRET_ACCESS_KEY": "test",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_EC2_METADATA_DISABLED": "true",
}


class S3Server:
    """A server with one bucket. What it stores is in this process, so that it survives a stop."""

    def __init__(self) -> None:
        self._server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
        self._server.start()
        _, self.port = self._server.get_host_and_port()
        self.client = boto3.client("s3", endpoint_url=f"http://127.0.0.1:{self.port}")
        self.client.create_bucket(Bucket=BUCKET)

    def uri(self, folder: str = "sweeps") -> str:
        """Return the URI of a folder in the bucket, as pyarrow takes it."""
        return f"s3://{BUCKET}/{folder}?endpoint_override=127.0.0.1:{self.port}&scheme=http&region=us-east-1"

    def objects(self, prefix: str = "") -> dict[str, int]:
        """Return the size of each object in bytes, without the empty ones that stand for folders."""
        pages = self.client.get_paginator("list_objects_v2").paginate(Bucket=BUCKET, Prefix=prefix)
        found = [entry for page in pages for entry in page.get("Contents", ())]
        return {entry["Key"]: entry["Size"] for entry in found if not entry["Key"].endswith("/")}

    def stop(self) -> None:
        """Refuse connections."""
        self._server.stop()

    def start(self) -> None:
        """Listen again at the same port."""
        self._server = ThreadedMotoServer(ip_address="127.0.0.1", port=self.port, verbose=False)
        self._server.start()


@contextmanager
def s3_server() -> Iterator[S3Server]:
    """Run a server, with the credentials for it in the environment."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in ENVIRONMENT.items():
            patch.setenv(name, value)
        logging.getLogger("werkzeug").setLevel(logging.ERROR)  # a line per request
        server = S3Server()
        try:
            yield server
        finally:
            server.stop()
            server.client.close()
            s3_backends.reset()
