#!/usr/bin/env python3
"""compose.py FILE: what the compose schema cannot say, on the loaded model (JSON).

Every service that another waits for exists; one that is waited for to be healthy has a health
check; every file that is mounted exists; every named volume is declared; services of one image that read one topology
have the same environment, since each reads all of it.
"""

import json
import sys
from pathlib import Path


def problems(model):
    services, volumes = model["services"], model.get("volumes", {})
    ours = {name: service for name, service in services.items() if service.get("image") == "accrue:local"}
    every = {variable for service in ours.values() for variable in service["environment"]}
    for name, service in ours.items():
        for variable in sorted(every - service["environment"].keys()):
            yield f"{name} lacks {variable}, which other services of its image have: the topology may name it"
    for name, service in services.items():
        for other, wait in service.get("depends_on", {}).items():
            if other not in services:
                yield f"{name} depends on {other}, which is no service"
            elif wait["condition"] == "service_healthy" and "healthcheck" not in services[other]:
                yield f"{name} waits for {other} to be healthy, which has no healthcheck"
        for mount in service.get("volumes", []):
            if mount["type"] == "bind" and not Path(mount["source"]).exists():
                yield f"{name} mounts {mount['source']}, which does not exist"
            if mount["type"] == "volume" and mount.get("source") not in volumes:
                yield f"{name} mounts volume {mount.get('source')}, which is not declared"


if __name__ == "__main__":
    found = list(problems(json.loads(Path(sys.argv[1]).read_text())))
    sys.exit("\n".join(found) or 0)
