"""The HTTP contracts: Snowflake's SQL API v2 and BigQuery's jobs, after their published descriptions.

Owns requests, their ids, and tokens. Invariant: a statement whose id is known is not carried out again; a token that
does not verify is refused. Absent: SQL (engine) and misbehaviour (faults), but for the answers they lead to.
"""

import base64
import hashlib
import json
import threading
import time
import uuid

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa

import engine

PENDING_LOOKS = 2


class Refused(Exception):
    """An answer other than 200."""

    def __init__(self, status, body, headers=None):
        self.status, self.body, self.headers = status, body, headers or {}


class KeyPair:
    def __init__(self):
        self.private = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        self.pem = self.private.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        ).decode()
        der = self.private.public_key().public_bytes(
            serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        self.fingerprint = "SHA256:" + base64.b64encode(hashlib.sha256(der).digest()).decode()

    def claims(self, token):
        """What a token says; None unless this key signed it and its time has come and is not over."""
        try:
            head, body, signature = token.split(".")
            decode = lambda part: base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))
            self.private.public_key().verify(decode(signature), f"{head}.{body}".encode(), padding.PKCS1v15(), hashes.SHA256())
            said = json.loads(decode(body))
        except (ValueError, InvalidSignature):
            return None
        now = time.time()
        sound = json.loads(decode(head)).get("alg") == "RS256" and said["iat"] <= now + 60 and now < said["exp"] <= said["iat"] + 3600
        return said if sound else None


class Snowflake:
    """Answers as `https://ACCOUNT.snowflakecomputing.com` does."""

    ACCOUNT, USER = "ACME-BOOKS", "ACCRUE"

    def __init__(self):
        self.key, self.schemas, self.results, self.expired = KeyPair(), {}, {}, False
        self.lock, self.writing = threading.Lock(), threading.Lock()

    def submit(self, query, headers, body):
        """POST /api/v2/statements; gives (answer, None) or (None, handle) while it runs."""
        self.authorize(headers)
        request, retry = query.get("requestId"), query.get("retry") == "true"
        with self.lock:
            handle = self.results.get(request) if retry else None
            fresh = handle is None
            if fresh:
                handle = str(uuid.uuid4())
                self.results[request] = handle
                self.results[handle] = None
        if fresh:
            self.results[handle] = self.execute(handle, body)
        while self.results[handle] is None:
            time.sleep(0.01)
        return handle

    def execute(self, handle, body):
        common = {"statementHandle": handle, "createdOn": int(time.time() * 1000)}
        try:
            database = self.schemas.get((body.get("database"), body.get("schema")))
            if database is None or not body.get("warehouse"):
                raise engine.Wrong("Cannot perform operation. This session does not have a current schema.")
            trees = engine.snowflake(body["statement"])
            wanted = int(body.get("parameters", {}).get("MULTI_STATEMENT_COUNT", 1))
            if wanted not in (0, len(trees)):
                raise engine.Wrong(f"Actual statement count {len(trees)} did not match the desired statement count {wanted}.")
            bindings = body.get("bindings", {})
            if len(trees) > 1 and bindings:
                raise engine.Wrong("Variable binding is not supported in multi-statement requests.")
            if len(trees) == 1 and isinstance(trees[0], (engine.exp.Transaction, engine.exp.Commit)):
                raise engine.Wrong("Unsupported statement type 'BEGIN'.")
            texts = [bindings[str(n + 1)]["value"] for n in range(len(bindings))]
            # The second of two transactions waits for the lock on the table of positions.
            with self.writing:
                rows = database.run(trees, texts)
        except (engine.Wrong, engine.Conflict) as error:
            message = str(error)
            if "Could not convert string" in message:
                message = "Numeric value " + message.partition("string ")[2].partition(" to ")[0] + " is not recognized"
            return 422, common | {"code": "100038" if "Numeric" in message else "001003", "sqlState": "42000", "message": message}
        done = common | {"code": "090001", "sqlState": "00000", "message": "Statement executed successfully."}
        if len(trees) > 1:
            rows = [["Multiple statements executed successfully."]]
            done["statementHandles"] = [str(uuid.uuid4()) for _ in trees]
        data = [[None if cell is None else str(cell) for cell in row] for row in rows]
        half = len(data) // 2
        parts = [data[:half], data[half:]] if half else [data]
        done["resultSetMetaData"] = {
            "numRows": len(data),
            "format": "jsonv2",
            "partitionInfo": [{"rowCount": len(part)} for part in parts],
        }
        done["parts"] = parts
        return 200, done

    def look(self, handle, query, headers):
        """GET /api/v2/statements/HANDLE."""
        self.authorize(headers)
        if handle not in self.results:
            raise Refused(404, {"code": "390404", "message": "statement handle not found"})
        return handle

    def answer(self, handle, partition=0):
        status, body = self.results[handle]
        body = dict(body)
        parts = body.pop("parts", None)
        if parts is not None:
            body["data"] = parts[partition]
        return status, body

    def under_way(self, handle):
        return 202, {
            "code": "333334",
            "message": "Asynchronous execution in progress. Use provided query id to perform query monitoring and management.",
            "statementHandle": handle,
            "statementStatusUrl": f"/api/v2/statements/{handle}",
        }

    def authorize(self, headers):
        kind, token = headers.get("X-Snowflake-Authorization-Token-Type"), headers.get("Authorization", "").removeprefix("Bearer ")
        said = self.key.claims(token) if kind == "KEYPAIR_JWT" else None
        subject = f"{self.ACCOUNT}.{self.USER}"
        if said is None or said.get("sub") != subject or said.get("iss") != f"{subject}.{self.key.fingerprint}":
            raise Refused(401, {"code": "390144", "message": "JWT token is invalid."})
        if "accrue/" not in headers.get("User-Agent", ""):
            raise Refused(400, {"code": "390000", "message": "User-Agent is missing"})

    def expire(self):
        raise Refused(401, {"code": "390114", "message": "Authentication token has expired."})


class BigQuery:
    """Answers as `https://bigquery.googleapis.com` and `https://oauth2.googleapis.com/token` do."""

    EMAIL, PROJECT, LOCATION = "accrue@acme-books.iam.gserviceaccount.com", "acme-books", "EU"

    def __init__(self):
        self.key, self.datasets, self.jobs, self.tokens = KeyPair(), {}, {}, set()
        self.lock, self.address = threading.Lock(), ""

    def token(self, form):
        said = self.key.claims(form.get("assertion", ""))
        if form.get("grant_type") != "urn:ietf:params:oauth:grant-type:jwt-bearer":
            raise Refused(400, {"error": "unsupported_grant_type"})
        if said is None or said.get("iss") != self.EMAIL or said.get("aud") != self.address + "/token" or "bigquery" not in said.get("scope", ""):
            raise Refused(400, {"error": "invalid_grant", "error_description": "Invalid JWT Signature."})
        token = "ya29." + uuid.uuid4().hex
        self.tokens.add(token)
        return 200, {"access_token": token, "expires_in": 3599, "token_type": "Bearer"}

    def authorize(self, headers):
        if headers.get("Authorization", "").removeprefix("Bearer ") not in self.tokens:
            self.refuse(401, "authError", "Invalid Credentials")

    def expire(self):
        self.tokens.clear()
        self.refuse(401, "authError", "Invalid Credentials")

    def refuse(self, status, reason, message):
        raise Refused(status, {"error": {"code": status, "message": message, "errors": [{"reason": reason, "message": message}]}})

    def insert(self, project, headers, body):
        """jobs.insert."""
        self.authorize(headers)
        reference, query = body["jobReference"], body["configuration"]["query"]
        if project != self.PROJECT or reference["projectId"] != project:
            self.refuse(404, "notFound", f"Not found: Project {project}")
        with self.lock:
            name = reference["jobId"]
            if name in self.jobs:
                self.refuse(409, "duplicate", f"Already Exists: Job {project}:{self.LOCATION}.{name}")
            self.jobs[name] = {"state": "RUNNING"}
        threading.Thread(target=self.carry_out, args=(name, query), daemon=True).start()
        return name

    def carry_out(self, name, query):
        status = {"state": "DONE"}
        rows = []
        try:
            dataset = self.datasets.get(query.get("defaultDataset", {}).get("datasetId"))
            if query.get("useLegacySql", True):
                raise engine.Wrong("Legacy SQL is not what this is for.")
            if dataset is None:
                raise engine.Wrong(f"Not found: Dataset {query.get('defaultDataset')}")
            texts = []
            for parameter in query.get("queryParameters", []):
                if query.get("parameterMode") != "POSITIONAL" or parameter["parameterType"]["type"] != "STRING":
                    raise engine.Wrong("Undeclared query parameters")
                texts.append(parameter["parameterValue"]["value"])
            rows = dataset.run(engine.bigquery(query["query"]), texts)
        except engine.Conflict as error:
            status["errorResult"] = {
                "reason": "invalidQuery",
                "message": f"Transaction is aborted due to concurrent update against table {error}. Transaction ID: {name}",
            }
        except engine.Wrong as error:
            status["errorResult"] = {"reason": "invalidQuery", "message": str(error)}
        except Exception as error:  # a mistake of this double is told, too
            status["errorResult"] = {"reason": "invalidQuery", "message": f"double: {error!r}"}
        self.jobs[name] = status | {"rows": rows}

    def finish(self, name):
        while self.jobs[name]["state"] != "DONE":
            time.sleep(0.01)

    def job(self, name, pending=False):
        """A job resource."""
        if name not in self.jobs:
            self.refuse(404, "notFound", f"Not found: Job {name}")
        known = {key: value for key, value in self.jobs[name].items() if key != "rows"}
        status = {"state": "RUNNING"} if pending else known
        return 200, {"kind": "bigquery#job", "jobReference": {"projectId": self.PROJECT, "jobId": name, "location": self.LOCATION}, "status": status}

    def query(self, project, headers, body):
        """jobs.query."""
        self.authorize(headers)
        name = "job_" + uuid.uuid4().hex
        self.jobs[name] = {"state": "RUNNING"}
        self.carry_out(name, body)
        return name

    def results(self, name, page=None, pending=False):
        """Two pages, so that a reader of one alone is noticed."""
        reference = {"jobReference": {"projectId": self.PROJECT, "jobId": name, "location": self.LOCATION}}
        if pending:
            return 200, reference | {"jobComplete": False}
        if name not in self.jobs:
            self.refuse(404, "notFound", f"Not found: Job {name}")
        job = self.jobs[name]
        if "errorResult" in job:
            self.refuse(400, job["errorResult"]["reason"], job["errorResult"]["message"])
        cells = [{"f": [{"v": None if cell is None else str(cell)} for cell in row]} for row in job["rows"]]
        half = len(cells) // 2
        answer = reference | {"jobComplete": True, "totalRows": str(len(cells))}
        if page is None and half:
            return 200, answer | {"rows": cells[:half], "pageToken": "next"}
        return 200, answer | {"rows": cells[half:]}
