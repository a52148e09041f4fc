-- 0002 chunks: long texts, cut into pieces that are stored once.

-- A long text is a manifest in its row, `={"lists":[…],…}`: the names of lists, each of which names chunks. Names are
-- hashes of the content, so that what two texts share is there once. Two levels, so that a text of 10 MB that has
-- changed a little touches dozens of rows and not thousands. The format is src/store/payload's.
--
-- `refs` counts who names it: for a list the columns with a manifest, for a chunk the lists. Triggers keep it right
-- whoever writes. What has none is deleted before the transaction ends, not at once: a message that is handled may
-- live on as a dead letter of the same commit.

-- Counts and contents apart: a new list touches the counts of all its chunks, which thereby lie close together.
CREATE TABLE chunks (
  id   INTEGER PRIMARY KEY,
  name TEXT    NOT NULL UNIQUE,
  refs INTEGER NOT NULL DEFAULT 0 CHECK (refs >= 0)
) STRICT;
CREATE INDEX chunks_unused ON chunks (id) WHERE refs = 0;

CREATE TABLE chunk_data (
  id   INTEGER PRIMARY KEY,
  data BLOB    NOT NULL
) STRICT;

CREATE TABLE chunk_lists (
  id     INTEGER PRIMARY KEY,
  name   TEXT    NOT NULL UNIQUE,
  refs   INTEGER NOT NULL DEFAULT 0 CHECK (refs >= 0),
  chunks TEXT    NOT NULL CHECK (json_valid(chunks))
) STRICT;
CREATE INDEX chunk_lists_unused ON chunk_lists (id) WHERE refs = 0;

CREATE TRIGGER chunks_delete AFTER DELETE ON chunks BEGIN
  DELETE FROM chunk_data WHERE id = OLD.id;
END;

CREATE TRIGGER chunk_lists_insert AFTER INSERT ON chunk_lists BEGIN
  UPDATE chunks SET refs = refs + 1 WHERE name IN (SELECT value FROM json_each(NEW.chunks));
  SELECT RAISE(ABORT, 'a chunk is missing') FROM json_each(NEW.chunks)
    WHERE value NOT IN (SELECT name FROM chunks);
END;

CREATE TRIGGER chunk_lists_delete AFTER DELETE ON chunk_lists BEGIN
  UPDATE chunks SET refs = refs - 1 WHERE name IN (SELECT value FROM json_each(OLD.chunks));
END;

-- Not to be read. To insert (manifest, 1) counts what it names, (manifest, -1) takes that back. A table that holds
-- texts of actors has three triggers, whatever the number of its columns: each costs every row half a microsecond.
CREATE VIEW manifests (manifest, change) AS SELECT NULL, NULL;

CREATE TRIGGER manifests_insert INSTEAD OF INSERT ON manifests
WHEN NEW.manifest >= '={' AND NEW.manifest < '=|' BEGIN
  SELECT RAISE(ABORT, 'a text that begins like a manifest is none') WHERE NOT json_valid(substr(NEW.manifest, 2));
  UPDATE chunk_lists SET refs = refs + NEW.change
    WHERE name IN (SELECT value FROM json_each(substr(NEW.manifest, 2), '$.lists'));
  SELECT RAISE(ABORT, 'a list of chunks is missing') FROM json_each(substr(NEW.manifest, 2), '$.lists')
    WHERE NEW.change = 1 AND value NOT IN (SELECT name FROM chunk_lists);
END;

CREATE TRIGGER checkpoints_insert_texts AFTER INSERT ON checkpoints
WHEN (NEW.event_json >= '={' AND NEW.event_json < '=|')
  OR (NEW.snapshot_json >= '={' AND NEW.snapshot_json < '=|') BEGIN
  INSERT INTO manifests VALUES (NEW.event_json, 1), (NEW.snapshot_json, 1);
END;
CREATE TRIGGER checkpoints_update_texts AFTER UPDATE OF event_json, snapshot_json ON checkpoints
WHEN (NEW.event_json >= '={' AND NEW.event_json < '=|')
  OR (NEW.snapshot_json >= '={' AND NEW.snapshot_json < '=|')
  OR (OLD.event_json >= '={' AND OLD.event_json < '=|')
  OR (OLD.snapshot_json >= '={' AND OLD.snapshot_json < '=|') BEGIN
  INSERT INTO manifests VALUES (OLD.event_json, -1), (OLD.snapshot_json, -1), (NEW.event_json, 1), (NEW.snapshot_json, 1);
END;
CREATE TRIGGER checkpoints_delete_texts AFTER DELETE ON checkpoints
WHEN (OLD.event_json >= '={' AND OLD.event_json < '=|')
  OR (OLD.snapshot_json >= '={' AND OLD.snapshot_json < '=|') BEGIN
  INSERT INTO manifests VALUES (OLD.event_json, -1), (OLD.snapshot_json, -1);
END;

CREATE TRIGGER messages_insert_texts AFTER INSERT ON messages
WHEN (NEW.message_json >= '={' AND NEW.message_json < '=|') BEGIN
  INSERT INTO manifests VALUES (NEW.message_json, 1);
END;
CREATE TRIGGER messages_update_texts AFTER UPDATE OF message_json ON messages
WHEN (NEW.message_json >= '={' AND NEW.message_json < '=|')
  OR (OLD.message_json >= '={' AND OLD.message_json < '=|') BEGIN
  INSERT INTO manifests VALUES (OLD.message_json, -1), (NEW.message_json, 1);
END;
CREATE TRIGGER messages_delete_texts AFTER DELETE ON messages
WHEN (OLD.message_json >= '={' AND OLD.message_json < '=|') BEGIN
  INSERT INTO manifests VALUES (OLD.message_json, -1);
END;

CREATE TRIGGER timers_insert_texts AFTER INSERT ON timers
WHEN (NEW.action_json >= '={' AND NEW.action_json < '=|') BEGIN
  INSERT INTO manifests VALUES (NEW.action_json, 1);
END;
CREATE TRIGGER timers_update_texts AFTER UPDATE OF action_json ON timers
WHEN (NEW.action_json >= '={' AND NEW.action_json < '=|')
  OR (OLD.action_json >= '={' AND OLD.action_json < '=|') BEGIN
  INSERT INTO manifests VALUES (OLD.action_json, -1), (NEW.action_json, 1);
END;
CREATE TRIGGER timers_delete_texts AFTER DELETE ON timers
WHEN (OLD.action_json >= '={' AND OLD.action_json < '=|') BEGIN
  INSERT INTO manifests VALUES (OLD.action_json, -1);
END;

CREATE TRIGGER effects_insert_texts AFTER INSERT ON effects
WHEN (NEW.input_json >= '={' AND NEW.input_json < '=|') BEGIN
  INSERT INTO manifests VALUES (NEW.input_json, 1);
END;
CREATE TRIGGER effects_update_texts AFTER UPDATE OF input_json ON effects
WHEN (NEW.input_json >= '={' AND NEW.input_json < '=|')
  OR (OLD.input_json >= '={' AND OLD.input_json < '=|') BEGIN
  INSERT INTO manifests VALUES (OLD.input_json, -1), (NEW.input_json, 1);
END;
CREATE TRIGGER effects_delete_texts AFTER DELETE ON effects
WHEN (OLD.input_json >= '={' AND OLD.input_json < '=|') BEGIN
  INSERT INTO manifests VALUES (OLD.input_json, -1);
END;

CREATE TRIGGER steps_insert_texts AFTER INSERT ON steps
WHEN (NEW.outcome_json >= '={' AND NEW.outcome_json < '=|') BEGIN
  INSERT INTO manifests VALUES (NEW.outcome_json, 1);
END;
CREATE TRIGGER steps_update_texts AFTER UPDATE OF outcome_json ON steps
WHEN (NEW.outcome_json >= '={' AND NEW.outcome_json < '=|')
  OR (OLD.outcome_json >= '={' AND OLD.outcome_json < '=|') BEGIN
  INSERT INTO manifests VALUES (OLD.outcome_json, -1), (NEW.outcome_json, 1);
END;
CREATE TRIGGER steps_delete_texts AFTER DELETE ON steps
WHEN (OLD.outcome_json >= '={' AND OLD.outcome_json < '=|') BEGIN
  INSERT INTO manifests VALUES (OLD.outcome_json, -1);
END;

CREATE TRIGGER dead_letters_insert_texts AFTER INSERT ON dead_letters
WHEN (NEW.message_json >= '={' AND NEW.message_json < '=|') BEGIN
  INSERT INTO manifests VALUES (NEW.message_json, 1);
END;
CREATE TRIGGER dead_letters_update_texts AFTER UPDATE OF message_json ON dead_letters
WHEN (NEW.message_json >= '={' AND NEW.message_json < '=|')
  OR (OLD.message_json >= '={' AND OLD.message_json < '=|') BEGIN
  INSERT INTO manifests VALUES (OLD.message_json, -1), (NEW.message_json, 1);
END;
CREATE TRIGGER dead_letters_delete_texts AFTER DELETE ON dead_letters
WHEN (OLD.message_json >= '={' AND OLD.message_json < '=|') BEGIN
  INSERT INTO manifests VALUES (OLD.message_json, -1);
END;

CREATE TRIGGER runs_insert_texts AFTER INSERT ON runs
WHEN (NEW.details_json >= '={' AND NEW.details_json < '=|') BEGIN
  INSERT INTO manifests VALUES (NEW.details_json, 1);
END;
CREATE TRIGGER runs_update_texts AFTER UPDATE OF details_json ON runs
WHEN (NEW.details_json >= '={' AND NEW.details_json < '=|')
  OR (OLD.details_json >= '={' AND OLD.details_json < '=|') BEGIN
  INSERT INTO manifests VALUES (OLD.details_json, -1), (NEW.details_json, 1);
END;
CREATE TRIGGER runs_delete_texts AFTER DELETE ON runs
WHEN (OLD.details_json >= '={' AND OLD.details_json < '=|') BEGIN
  INSERT INTO manifests VALUES (OLD.details_json, -1);
END;

CREATE TRIGGER tasks_insert_texts AFTER INSERT ON tasks
WHEN (NEW.details_json >= '={' AND NEW.details_json < '=|') BEGIN
  INSERT INTO manifests VALUES (NEW.details_json, 1);
END;
CREATE TRIGGER tasks_update_texts AFTER UPDATE OF details_json ON tasks
WHEN (NEW.details_json >= '={' AND NEW.details_json < '=|')
  OR (OLD.details_json >= '={' AND OLD.details_json < '=|') BEGIN
  INSERT INTO manifests VALUES (OLD.details_json, -1), (NEW.details_json, 1);
END;
CREATE TRIGGER tasks_delete_texts AFTER DELETE ON tasks
WHEN (OLD.details_json >= '={' AND OLD.details_json < '=|') BEGIN
  INSERT INTO manifests VALUES (OLD.details_json, -1);
END;

CREATE TRIGGER attempts_insert_texts AFTER INSERT ON attempts
WHEN (NEW.details_json >= '={' AND NEW.details_json < '=|') BEGIN
  INSERT INTO manifests VALUES (NEW.details_json, 1);
END;
CREATE TRIGGER attempts_update_texts AFTER UPDATE OF details_json ON attempts
WHEN (NEW.details_json >= '={' AND NEW.details_json < '=|')
  OR (OLD.details_json >= '={' AND OLD.details_json < '=|') BEGIN
  INSERT INTO manifests VALUES (OLD.details_json, -1), (NEW.details_json, 1);
END;
CREATE TRIGGER attempts_delete_texts AFTER DELETE ON attempts
WHEN (OLD.details_json >= '={' AND OLD.details_json < '=|') BEGIN
  INSERT INTO manifests VALUES (OLD.details_json, -1);
END;
