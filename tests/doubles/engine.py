"""The SQL of Snowflake and BigQuery, carried out by DuckDB.

Owns the databases, what is known of their columns, and the translation. Invariant: a statement is read in its
warehouse's dialect before DuckDB sees it: by GoogleSQL's own parser for BigQuery, by sqlglot and the list of reserved
words for Snowflake; what the dialect does not have is refused, as the vendor would. Transactions are DuckDB's.
Absent: HTTP, and whatever accrue does not use.
"""

import threading

import duckdb
import sqlglot
from sqlglot import exp

# https://docs.snowflake.com/en/sql-reference/reserved-keywords, those that no column or table may be called.
SNOWFLAKE_RESERVED = set(
    "ALL ALTER AND ANY AS BETWEEN BY CASE CAST CHECK COLUMN CONNECT CONSTRAINT CREATE CROSS CURRENT DELETE DISTINCT DROP "
    "ELSE EXISTS FALSE FOLLOWING FOR FROM FULL GRANT GROUP HAVING ILIKE IN INCREMENT INNER INSERT INTERSECT INTO IS JOIN "
    "LATERAL LEFT LIKE MINUS NATURAL NOT NULL OF ON OR ORDER QUALIFY REGEXP REVOKE RIGHT RLIKE ROW ROWS SAMPLE SELECT SET "
    "SOME START TABLE TABLESAMPLE THEN TO TRIGGER TRUE UNION UNIQUE UPDATE USING VALUES WHEN WHENEVER WHERE WITH".split()
)


class Wrong(Exception):
    """A statement that the vendor would refuse."""


class Conflict(Exception):
    """A transaction that met another one."""


class Database:
    """One schema or dataset."""

    def __init__(self, dialect, names=()):
        self.dialect, self.names = dialect, names
        self.root = duckdb.connect()
        self.root.execute("SET TimeZone = 'UTC'; SET threads = 1; SET memory_limit = '512MB'")
        self.root.execute(
            "CREATE TABLE _columns (table_schema TEXT, table_name TEXT, column_name TEXT, data_type TEXT,"
            " numeric_precision INTEGER, numeric_scale INTEGER)"
        )
        self.lock = threading.Lock()
        self.versions = {}

    def run(self, trees, texts=()):
        """Carries out parsed statements; gives the rows of the last one. An open transaction is rolled back."""
        connection = self.root.cursor()
        connection.execute("SET TimeZone = 'UTC'")
        began, touched, rows = None, set(), []
        try:
            for tree in trees:
                if isinstance(tree, exp.Transaction):
                    connection.execute("BEGIN")
                    began = dict(self.versions)
                elif isinstance(tree, exp.Commit):
                    with self.lock:
                        if any(began.get(name) != self.versions.get(name) for name in touched):
                            raise Conflict(", ".join(sorted(touched)))
                        connection.execute("COMMIT")
                        began = None
                        for name in touched:
                            self.versions[name] = self.versions.get(name, 0) + 1
                else:
                    if isinstance(tree, (exp.Merge, exp.Update, exp.Delete)):
                        touched.add(tree.this.name.lower())
                    rows = self.one(connection, tree, texts)
            return rows
        except duckdb.TransactionException as error:
            raise Conflict(str(error)) from error
        except duckdb.Error as error:
            raise Wrong(str(error)) from error
        finally:
            if began is not None:
                connection.execute("ROLLBACK")
            connection.close()

    def one(self, connection, tree, texts):
        if isinstance(tree, Assertion):
            if connection.execute("SELECT " + self.sql(tree.condition)).fetchone()[0] is not True:
                raise Wrong(tree.message)
            return []
        sql = self.sql(tree)
        result = connection.execute(sql, list(texts)) if texts else connection.execute(sql)
        rows = result.fetchall() if result.description else []
        if isinstance(tree, exp.Create) and tree.kind == "TABLE":
            self.note(connection, tree.this.this.name, tree.this.expressions)
        if isinstance(tree, exp.Alter):
            self.note(connection, tree.this.name, [it for it in tree.args["actions"] if isinstance(it, exp.ColumnDef)])
        return rows

    def note(self, connection, table, columns):
        fold = str.upper if self.dialect == "snowflake" else str.lower
        for column in columns:
            known = [fold(table), fold(column.name)]
            there = "SELECT 1 FROM _columns WHERE table_name = ? AND column_name = ?"
            if not connection.execute(there, known).fetchone():
                kind = column.args["kind"]
                sizes = [int(size.name) for size in kind.expressions] + [None, None]
                word = kind.sql(dialect=self.dialect)
                if self.dialect == "snowflake":
                    word = {"VARCHAR": "TEXT", "DECIMAL": "NUMBER", "TIMESTAMPTZ": "TIMESTAMP_TZ"}.get(
                        word.split("(")[0], word.split("(")[0]
                    )
                values = ["MAIN", *known, word, sizes[0], sizes[1]]
                connection.execute("INSERT INTO _columns VALUES (?, ?, ?, ?, ?, ?)", values)

    def sql(self, tree):
        """The statement as DuckDB takes it."""
        tree = tree.copy()
        view = isinstance(tree, exp.Create) and tree.kind == "VIEW"
        common = {cte.alias.lower() for cte in tree.find_all(exp.CTE)}
        for table in list(tree.find_all(exp.Table)):
            parts = [part.name for part in table.parts]
            if parts[-1].upper().endswith("COLUMNS") and "INFORMATION_SCHEMA" in ".".join(parts).upper():
                table.replace(exp.to_table("_columns"))
            elif parts[:-1] and tuple(parts[:-1]) != tuple(self.names):
                raise Wrong(f"Not found: {'.'.join(parts)}")
            elif not parts[:-1] and view and self.names and parts[-1].lower() not in common:
                raise Wrong(f'Table "{parts[-1]}" must be qualified with a dataset (e.g. dataset.table).')
            else:
                table.set("db", None)
                table.set("catalog", None)
        for select in list(tree.find_all(exp.Select)):
            self.unfold(select)
        for part in list(tree.find_all(exp.Anonymous)):
            if part.name.upper() == "CURRENT_SCHEMA":
                part.replace(exp.Literal.string("MAIN"))
        for part in list(tree.find_all(exp.CurrentSchema)):
            part.replace(exp.Literal.string("MAIN"))
        if isinstance(tree, exp.Create):
            tree.set("properties", None)
        return tree.sql(dialect="duckdb")


    def unfold(self, select):
        """FLATTEN and UNNEST of a staged body: its rows alone, since DuckDB would carry the body along with each."""
        joins = select.args.get("joins") or []
        unfolded = joins[0].this if joins else None
        if isinstance(unfolded, exp.Lateral):
            path = unfolded.this.this.expression
            source, name, alias = path.this.this, path.expression.expressions[-1].this, unfolded.alias
        elif isinstance(unfolded, exp.Unnest):
            path = unfolded.expressions[0]
            source, name, alias = path.this, path.expression.expressions[-1].this, "r"
        else:
            return
        body, parts = source.sql("duckdb"), select.args["from_"].this.sql("duckdb")
        rows = f"SELECT UNNEST(CAST(json_extract({body}, '$.{name}') AS JSON[])) AS value FROM {parts}"
        select.set("from_", sqlglot.parse_one(f"SELECT 1 FROM ({rows}) AS {alias}", read="duckdb").args["from_"])
        select.set("joins", None)
        for cell in list(select.find_all(exp.Bracket, exp.JSONExtractScalar, exp.JSONValue)):
            if isinstance(cell, exp.Bracket):
                number = cell.expressions[0].name
            else:
                number = cell.sql("bigquery").rsplit("[", 1)[1].split("]")[0]
            cell.replace(sqlglot.parse_one(f"json_extract_string({alias}.value, '$[{number}]')", read="duckdb"))


class Assertion(exp.Expression):
    """BigQuery's ASSERT, which DuckDB has not."""

    condition = message = None


def snowflake(text):
    """The statements of a text."""
    try:
        trees = [tree for tree in sqlglot.parse(text, read="snowflake") if tree is not None]
    except sqlglot.errors.SqlglotError as error:
        raise Wrong(f"SQL compilation error: {error}") from error
    for tree in trees:
        if isinstance(tree, exp.Command):
            raise Wrong(f"SQL compilation error: {tree.sql()[:60]}")
        for name in tree.find_all(exp.Identifier):
            if not name.quoted and name.name.upper() in SNOWFLAKE_RESERVED:
                raise Wrong(f"SQL compilation error: syntax error unexpected '{name.name}'.")
    return trees


def _google_parser():
    """GoogleSQL's parser, compiled from WebAssembly: half a minute once, then kept in the user's cache."""
    import wasmtime
    from zetasql.core import wasm_client

    class Kept(wasmtime.Config):
        def __init__(self):
            super().__init__()
            self.cache = True

    wasm_client.Config = Kept
    from zetasql.api import Parser

    return Parser


_parser = threading.Lock()


def bigquery(text):
    """The statements of a script."""
    Parser = _google_parser()
    trees = []
    for part in (part.strip() for part in text.split(";\n")):
        part = part.rstrip(";")
        try:
            with _parser:
                Parser.parse_statement_static(part)
        except Exception as error:
            raise Wrong(str(error)) from error
        if part.startswith("ASSERT "):
            condition, _, message = part.removeprefix("ASSERT ").rpartition(" AS ")
            tree = Assertion()
            tree.condition, tree.message = sqlglot.parse_one(condition, read="bigquery"), message.strip("'")
            trees.append(tree)
        else:
            trees.append(sqlglot.parse_one(part, read="bigquery"))
    return trees
