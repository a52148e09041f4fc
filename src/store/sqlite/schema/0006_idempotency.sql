-- 0006 idempotency: answers kept by key, and what a step was asked.

ALTER TABLE steps ADD COLUMN kind TEXT NOT NULL DEFAULT 'step' CHECK (kind IN ('step', 'tx'));
ALTER TABLE steps ADD COLUMN input_hash TEXT;

-- Of an app's own schema, what has been carried out: statements are only ever added.
CREATE TABLE applied_app_schema (
  position INTEGER PRIMARY KEY CHECK (position >= 1),
  sql_hash TEXT    NOT NULL
) STRICT;

-- What was sent or asked under a key. A request without an answer keeps the name under which the answer will come.
CREATE TABLE idempotency (
  key          TEXT    NOT NULL PRIMARY KEY,
  input_hash   TEXT    NOT NULL,
  correlation  TEXT,
  outcome_json TEXT,
  created_at   INTEGER NOT NULL,
  expires_at   INTEGER NOT NULL,
  CHECK (correlation IS NULL OR outcome_json IS NULL)
) STRICT;
CREATE INDEX idempotency_by_expiry ON idempotency (expires_at);
CREATE INDEX idempotency_waiting ON idempotency (correlation) WHERE correlation IS NOT NULL;

-- Long texts are manifests here too: see 0002.
CREATE TRIGGER idempotency_insert_outcome_json AFTER INSERT ON idempotency
WHEN NEW.outcome_json >= '={' AND NEW.outcome_json < '=|' BEGIN
  INSERT INTO manifests VALUES (NEW.outcome_json, 1);
END;
CREATE TRIGGER idempotency_update_outcome_json AFTER UPDATE OF outcome_json ON idempotency
WHEN (NEW.outcome_json >= '={' AND NEW.outcome_json < '=|') OR (OLD.outcome_json >= '={' AND OLD.outcome_json < '=|') BEGIN
  INSERT INTO manifests VALUES (OLD.outcome_json, -1), (NEW.outcome_json, 1);
END;
CREATE TRIGGER idempotency_delete_outcome_json AFTER DELETE ON idempotency
WHEN OLD.outcome_json >= '={' AND OLD.outcome_json < '=|' BEGIN
  INSERT INTO manifests VALUES (OLD.outcome_json, -1);
END;
