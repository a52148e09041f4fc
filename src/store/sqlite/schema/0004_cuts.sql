-- 0004 cuts: moments of a run to which it can be rolled back.

-- What was under way after the turn (null: nothing), so that the checkpoint can be restored exactly; and notes of whoever
-- made it by hand.
ALTER TABLE checkpoints ADD COLUMN version INTEGER NOT NULL DEFAULT 1;
ALTER TABLE checkpoints ADD COLUMN pending_json TEXT;
ALTER TABLE checkpoints ADD COLUMN details_json TEXT;
UPDATE checkpoints SET version = actors.version FROM actors
WHERE actors.address = checkpoints.address AND actors.version <> 1;

CREATE TABLE cuts (
  position     INTEGER PRIMARY KEY,
  id           TEXT    NOT NULL UNIQUE,
  run          TEXT    NOT NULL,
  at           INTEGER NOT NULL,
  kind         TEXT    NOT NULL CHECK (kind IN ('start', 'timed', 'manual', 'milestone', 'rollback')),
  label        TEXT,
  details_json TEXT
) STRICT;
CREATE INDEX cuts_by_run ON cuts (run, position);

-- A checkpoint that is named here must not be pruned.
CREATE TABLE cut_members (
  cut     INTEGER NOT NULL REFERENCES cuts (position) ON DELETE CASCADE,
  address TEXT    NOT NULL,
  seq     INTEGER NOT NULL,
  PRIMARY KEY (cut, address)
) STRICT, WITHOUT ROWID;
CREATE INDEX cut_members_by_checkpoint ON cut_members (address, seq);

-- Rows as they were, copied.
CREATE TABLE cut_messages (
  cut          INTEGER NOT NULL REFERENCES cuts (position) ON DELETE CASCADE,
  position     INTEGER NOT NULL,
  id           TEXT    NOT NULL,
  sender       TEXT    NOT NULL,
  receiver     TEXT    NOT NULL,
  priority     INTEGER NOT NULL,
  sent_at      INTEGER NOT NULL,
  message_json TEXT    NOT NULL,
  correlation  TEXT,
  attempt      INTEGER,
  reply        INTEGER NOT NULL,
  PRIMARY KEY (cut, position)
) STRICT, WITHOUT ROWID;

CREATE TABLE cut_timers (
  cut         INTEGER NOT NULL REFERENCES cuts (position) ON DELETE CASCADE,
  address     TEXT    NOT NULL,
  id          TEXT    NOT NULL,
  generation  TEXT    NOT NULL,
  due_at      INTEGER NOT NULL,
  action_json TEXT    NOT NULL,
  PRIMARY KEY (cut, address, id)
) STRICT, WITHOUT ROWID;

CREATE TABLE cut_effects (
  cut        INTEGER NOT NULL REFERENCES cuts (position) ON DELETE CASCADE,
  address    TEXT    NOT NULL,
  id         TEXT    NOT NULL,
  generation TEXT    NOT NULL,
  src        TEXT    NOT NULL,
  input_json TEXT    NOT NULL,
  attempt    INTEGER NOT NULL,
  started_at INTEGER NOT NULL,
  PRIMARY KEY (cut, address, id)
) STRICT, WITHOUT ROWID;

CREATE TABLE cut_claims (
  cut   INTEGER NOT NULL REFERENCES cuts (position) ON DELETE CASCADE,
  run   TEXT    NOT NULL,
  task  TEXT    NOT NULL,
  token TEXT    NOT NULL,
  open  INTEGER NOT NULL CHECK (open IN (0, 1)),
  PRIMARY KEY (cut, run, task)
) STRICT, WITHOUT ROWID;

-- Attempts before the last one of each task: its state knows only that.
CREATE TABLE cut_attempts (
  cut          INTEGER NOT NULL REFERENCES cuts (position) ON DELETE CASCADE,
  run          TEXT    NOT NULL,
  task         TEXT    NOT NULL,
  attempt      INTEGER NOT NULL,
  outcome      TEXT    NOT NULL,
  reason       TEXT,
  started_at   INTEGER NOT NULL,
  ended_at     INTEGER,
  details_json TEXT    NOT NULL,
  PRIMARY KEY (cut, run, task, attempt)
) STRICT, WITHOUT ROWID;

-- Long texts are manifests here too: see 0002.

-- The triggers of 0002, with the new columns.
DROP TRIGGER checkpoints_insert_texts;
DROP TRIGGER checkpoints_update_texts;
DROP TRIGGER checkpoints_delete_texts;
CREATE TRIGGER checkpoints_insert_texts AFTER INSERT ON checkpoints
WHEN (NEW.event_json >= '={' AND NEW.event_json < '=|')
  OR (NEW.snapshot_json >= '={' AND NEW.snapshot_json < '=|')
  OR (NEW.pending_json >= '={' AND NEW.pending_json < '=|')
  OR (NEW.details_json >= '={' AND NEW.details_json < '=|') BEGIN
  INSERT INTO manifests VALUES (NEW.event_json, 1), (NEW.snapshot_json, 1), (NEW.pending_json, 1), (NEW.details_json, 1);
END;
CREATE TRIGGER checkpoints_update_texts AFTER UPDATE OF event_json, snapshot_json, pending_json, details_json ON checkpoints
WHEN (NEW.event_json >= '={' AND NEW.event_json < '=|')
  OR (NEW.snapshot_json >= '={' AND NEW.snapshot_json < '=|')
  OR (NEW.pending_json >= '={' AND NEW.pending_json < '=|')
  OR (NEW.details_json >= '={' AND NEW.details_json < '=|')
  OR (OLD.event_json >= '={' AND OLD.event_json < '=|')
  OR (OLD.snapshot_json >= '={' AND OLD.snapshot_json < '=|')
  OR (OLD.pending_json >= '={' AND OLD.pending_json < '=|')
  OR (OLD.details_json >= '={' AND OLD.details_json < '=|') BEGIN
  INSERT INTO manifests VALUES (OLD.event_json, -1), (OLD.snapshot_json, -1), (OLD.pending_json, -1), (OLD.details_json, -1), (NEW.event_json, 1), (NEW.snapshot_json, 1), (NEW.pending_json, 1), (NEW.details_json, 1);
END;
CREATE TRIGGER checkpoints_delete_texts AFTER DELETE ON checkpoints
WHEN (OLD.event_json >= '={' AND OLD.event_json < '=|')
  OR (OLD.snapshot_json >= '={' AND OLD.snapshot_json < '=|')
  OR (OLD.pending_json >= '={' AND OLD.pending_json < '=|')
  OR (OLD.details_json >= '={' AND OLD.details_json < '=|') BEGIN
  INSERT INTO manifests VALUES (OLD.event_json, -1), (OLD.snapshot_json, -1), (OLD.pending_json, -1), (OLD.details_json, -1);
END;

CREATE TRIGGER cut_messages_insert_message_json AFTER INSERT ON cut_messages
WHEN NEW.message_json >= '={' AND NEW.message_json < '=|' BEGIN
  INSERT INTO manifests VALUES (NEW.message_json, 1);
END;
CREATE TRIGGER cut_messages_update_message_json AFTER UPDATE OF message_json ON cut_messages
WHEN (NEW.message_json >= '={' AND NEW.message_json < '=|') OR (OLD.message_json >= '={' AND OLD.message_json < '=|') BEGIN
  INSERT INTO manifests VALUES (OLD.message_json, -1), (NEW.message_json, 1);
END;
CREATE TRIGGER cut_messages_delete_message_json AFTER DELETE ON cut_messages
WHEN OLD.message_json >= '={' AND OLD.message_json < '=|' BEGIN
  INSERT INTO manifests VALUES (OLD.message_json, -1);
END;

CREATE TRIGGER cut_timers_insert_action_json AFTER INSERT ON cut_timers
WHEN NEW.action_json >= '={' AND NEW.action_json < '=|' BEGIN
  INSERT INTO manifests VALUES (NEW.action_json, 1);
END;
CREATE TRIGGER cut_timers_update_action_json AFTER UPDATE OF action_json ON cut_timers
WHEN (NEW.action_json >= '={' AND NEW.action_json < '=|') OR (OLD.action_json >= '={' AND OLD.action_json < '=|') BEGIN
  INSERT INTO manifests VALUES (OLD.action_json, -1), (NEW.action_json, 1);
END;
CREATE TRIGGER cut_timers_delete_action_json AFTER DELETE ON cut_timers
WHEN OLD.action_json >= '={' AND OLD.action_json < '=|' BEGIN
  INSERT INTO manifests VALUES (OLD.action_json, -1);
END;

CREATE TRIGGER cut_effects_insert_input_json AFTER INSERT ON cut_effects
WHEN NEW.input_json >= '={' AND NEW.input_json < '=|' BEGIN
  INSERT INTO manifests VALUES (NEW.input_json, 1);
END;
CREATE TRIGGER cut_effects_update_input_json AFTER UPDATE OF input_json ON cut_effects
WHEN (NEW.input_json >= '={' AND NEW.input_json < '=|') OR (OLD.input_json >= '={' AND OLD.input_json < '=|') BEGIN
  INSERT INTO manifests VALUES (OLD.input_json, -1), (NEW.input_json, 1);
END;
CREATE TRIGGER cut_effects_delete_input_json AFTER DELETE ON cut_effects
WHEN OLD.input_json >= '={' AND OLD.input_json < '=|' BEGIN
  INSERT INTO manifests VALUES (OLD.input_json, -1);
END;

CREATE TRIGGER cut_attempts_insert_details_json AFTER INSERT ON cut_attempts
WHEN NEW.details_json >= '={' AND NEW.details_json < '=|' BEGIN
  INSERT INTO manifests VALUES (NEW.details_json, 1);
END;
CREATE TRIGGER cut_attempts_update_details_json AFTER UPDATE OF details_json ON cut_attempts
WHEN (NEW.details_json >= '={' AND NEW.details_json < '=|') OR (OLD.details_json >= '={' AND OLD.details_json < '=|') BEGIN
  INSERT INTO manifests VALUES (OLD.details_json, -1), (NEW.details_json, 1);
END;
CREATE TRIGGER cut_attempts_delete_details_json AFTER DELETE ON cut_attempts
WHEN OLD.details_json >= '={' AND OLD.details_json < '=|' BEGIN
  INSERT INTO manifests VALUES (OLD.details_json, -1);
END;
