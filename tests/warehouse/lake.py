#!/usr/bin/env python3
"""Asks a lakehouse as other people's programs see it.

    lake.py duckdb LAKE < questions     SQL in DuckDB, over LAKE/views.sql
    lake.py deltalake LAKE < tables     what delta-rs says of each table

`duckdb` reads a JSON list of statements and prints a JSON list of answers: rows of texts, null
as "". `deltalake` reads a JSON list of tables and prints {table: {version, rows, files, sums}}.

For S3, AWS_* variables say where and who, as those programs want them.
Owns no knowledge of how the tables were written.
"""

import json
import os
import pathlib
import sys

S3 = os.environ.get("AWS_ENDPOINT_URL")


def ask_duckdb(lake):
    import duckdb
    import duckdb_extension_delta

    connection = duckdb.connect()
    packaged = next(pathlib.Path(duckdb_extension_delta.__file__).parent.rglob("delta.duckdb_extension"))
    connection.execute(f"LOAD '{packaged}'")
    script = open(f"{lake}/views.sql", encoding="utf-8").read()
    # The packaged extension is loaded; installing it would ask the network.
    connection.execute(script.replace("INSTALL delta;\nLOAD delta;\n", ""))
    answers = []
    for statement in json.load(sys.stdin):
        rows = connection.execute(statement).fetchall()
        answers.append([["" if cell is None else str(cell) for cell in row] for row in rows])
    json.dump(answers, sys.stdout)


def ask_deltalake(lake):
    import deltalake
    import pyarrow.compute as compute

    options = None
    if S3:
        options = {"AWS_ENDPOINT_URL": S3, "AWS_ALLOW_HTTP": "true"}
    said = {}
    for name in json.load(sys.stdin):
        table = deltalake.DeltaTable(f"{lake}/{name}", storage_options=options)
        data = table.to_pyarrow_table()
        sums = {}
        for field in data.schema:
            if str(field.type).startswith("decimal"):
                sums[field.name] = str(compute.sum(data[field.name]).as_py())
        said[name] = {"version": table.version(), "rows": data.num_rows, "files": len(table.file_uris()), "sums": sums}
    json.dump(said, sys.stdout)


{"duckdb": ask_duckdb, "deltalake": ask_deltalake}[sys.argv[1]](sys.argv[2])
sys.stdout.flush()
# The libraries' threads may outlive the interpreter's end, which then aborts.
os._exit(0)
