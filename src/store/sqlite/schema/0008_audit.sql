-- 0008 audit: what was ordered from outside, and what came of it.

-- Turns are in the checkpoints, with the event of each. Here is what they do not hold: an order that was refused, or that
-- changed nothing. Texts are redacted before they are written.
CREATE TABLE audit (
  position     INTEGER PRIMARY KEY,
  at           INTEGER NOT NULL,
  kind         TEXT    NOT NULL CHECK (kind IN ('order', 'answer')),
  id           TEXT    NOT NULL,
  address      TEXT    NOT NULL CHECK (address GLOB '?*/?*'),
  type         TEXT    NOT NULL,
  by           TEXT    NOT NULL,
  details_json TEXT    NOT NULL
) STRICT;

-- Long texts are manifests here too: see 0002.
CREATE TRIGGER audit_insert_texts AFTER INSERT ON audit
WHEN (NEW.details_json >= '={' AND NEW.details_json < '=|') BEGIN
  INSERT INTO manifests VALUES (NEW.details_json, 1);
END;
CREATE TRIGGER audit_update_texts AFTER UPDATE OF details_json ON audit
WHEN (NEW.details_json >= '={' AND NEW.details_json < '=|')
  OR (OLD.details_json >= '={' AND OLD.details_json < '=|') BEGIN
  INSERT INTO manifests VALUES (OLD.details_json, -1), (NEW.details_json, 1);
END;
CREATE TRIGGER audit_delete_texts AFTER DELETE ON audit
WHEN (OLD.details_json >= '={' AND OLD.details_json < '=|') BEGIN
  INSERT INTO manifests VALUES (OLD.details_json, -1);
END;

-- To look into a store with any SQLite tool: docs/views.md. Events are as they were sent, not redacted.
CREATE VIEW troupe_audit AS
SELECT kind, id, address AS receiver, type, by,
  strftime('%Y-%m-%dT%H:%M:%fZ', at / 1000.0, 'unixepoch') AS at, details_json AS details
FROM audit;

CREATE VIEW troupe_turns AS
SELECT address, seq AS turn, kind,
  CASE WHEN json_valid(event_json) THEN event_json ->> '$.type' END AS type,
  CASE WHEN json_valid(event_json) THEN event_json ->> '$.meta.from' END AS sender,
  CASE WHEN json_valid(event_json) THEN event_json ->> '$.meta.id' END AS cause,
  strftime('%Y-%m-%dT%H:%M:%fZ', at / 1000.0, 'unixepoch') AS at, event_json AS event
FROM checkpoints;
