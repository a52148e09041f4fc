-- user_version 9, application_id 1414681936

CREATE TABLE actors (
  address    TEXT    NOT NULL PRIMARY KEY CHECK (address GLOB '?*/?*'),
  machine    TEXT    NOT NULL,
  version    INTEGER NOT NULL,
  status     TEXT    NOT NULL CHECK (status IN ('active', 'done', 'error', 'quarantined')),
  seq        INTEGER NOT NULL CHECK (seq >= 0),
  parent     TEXT,
  reason     TEXT,
  updated_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE applied_app_schema (
  position INTEGER PRIMARY KEY CHECK (position >= 1),
  sql_hash TEXT    NOT NULL
) STRICT;

CREATE TABLE attempts (
  run          TEXT    NOT NULL,
  task         TEXT    NOT NULL,
  attempt      INTEGER NOT NULL CHECK (attempt >= 1),
  outcome      TEXT    NOT NULL,
  reason       TEXT,
  started_at   INTEGER NOT NULL,
  ended_at     INTEGER,
  details_json TEXT    NOT NULL,
  PRIMARY KEY (run, task, attempt)
) STRICT;

CREATE TRIGGER attempts_delete_texts AFTER DELETE ON attempts
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

CREATE TRIGGER audit_delete_texts AFTER DELETE ON audit
WHEN (OLD.details_json >= '={' AND OLD.details_json < '=|') BEGIN
  INSERT INTO manifests VALUES (OLD.details_json, -1);
END;

CREATE TRIGGER audit_insert_texts AFTER INSERT ON audit
WHEN (NEW.details_json >= '={' AND NEW.details_json < '=|') BEGIN
  INSERT INTO manifests VALUES (NEW.details_json, 1);
END;

CREATE TRIGGER audit_update_texts AFTER UPDATE OF details_json ON audit
WHEN (NEW.details_json >= '={' AND NEW.details_json < '=|')
  OR (OLD.details_json >= '={' AND OLD.details_json < '=|') BEGIN
  INSERT INTO manifests VALUES (OLD.details_json, -1), (NEW.details_json, 1);
END;

CREATE TABLE checkpoints (
  address       TEXT    NOT NULL CHECK (address GLOB '?*/?*'),
  seq           INTEGER NOT NULL CHECK (seq >= 0),
  at            INTEGER NOT NULL,
  kind          TEXT    NOT NULL CHECK (kind IN ('auto', 'manual', 'milestone', 'error', 'rollback')),
  label         TEXT,
  event_json    TEXT,
  snapshot_json TEXT    NOT NULL, version INTEGER NOT NULL DEFAULT 1, pending_json TEXT, details_json TEXT,
  PRIMARY KEY (address, seq)
) STRICT;

CREATE TRIGGER checkpoints_delete_texts AFTER DELETE ON checkpoints
WHEN (OLD.event_json >= '={' AND OLD.event_json < '=|')
  OR (OLD.snapshot_json >= '={' AND OLD.snapshot_json < '=|')
  OR (OLD.pending_json >= '={' AND OLD.pending_json < '=|')
  OR (OLD.details_json >= '={' AND OLD.details_json < '=|') BEGIN
  INSERT INTO manifests VALUES (OLD.event_json, -1), (OLD.snapshot_json, -1), (OLD.pending_json, -1), (OLD.details_json, -1);
END;

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

CREATE TRIGGER chunk_lists_delete AFTER DELETE ON chunk_lists BEGIN
  UPDATE chunks SET refs = refs - 1 WHERE name IN (SELECT value FROM json_each(OLD.chunks));
END;

CREATE TRIGGER chunk_lists_insert AFTER INSERT ON chunk_lists BEGIN
  UPDATE chunks SET refs = refs + 1 WHERE name IN (SELECT value FROM json_each(NEW.chunks));
  SELECT RAISE(ABORT, 'a chunk is missing') FROM json_each(NEW.chunks)
    WHERE value NOT IN (SELECT name FROM chunks);
END;

CREATE INDEX chunk_lists_unused ON chunk_lists (id) WHERE refs = 0;

CREATE TABLE chunks (
  id   INTEGER PRIMARY KEY,
  name TEXT    NOT NULL UNIQUE,
  refs INTEGER NOT NULL DEFAULT 0 CHECK (refs >= 0)
) STRICT;

CREATE TRIGGER chunks_delete AFTER DELETE ON chunks BEGIN
  DELETE FROM chunk_data WHERE id = OLD.id;
END;

CREATE INDEX chunks_unused ON chunks (id) WHERE refs = 0;

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

CREATE TRIGGER cut_attempts_delete_details_json AFTER DELETE ON cut_attempts
WHEN OLD.details_json >= '={' AND OLD.details_json < '=|' BEGIN
  INSERT INTO manifests VALUES (OLD.details_json, -1);
END;

CREATE TRIGGER cut_attempts_insert_details_json AFTER INSERT ON cut_attempts
WHEN NEW.details_json >= '={' AND NEW.details_json < '=|' BEGIN
  INSERT INTO manifests VALUES (NEW.details_json, 1);
END;

CREATE TRIGGER cut_attempts_update_details_json AFTER UPDATE OF details_json ON cut_attempts
WHEN (NEW.details_json >= '={' AND NEW.details_json < '=|') OR (OLD.details_json >= '={' AND OLD.details_json < '=|') BEGIN
  INSERT INTO manifests VALUES (OLD.details_json, -1), (NEW.details_json, 1);
END;

CREATE TABLE cut_claims (
  cut   INTEGER NOT NULL REFERENCES cuts (position) ON DELETE CASCADE,
  run   TEXT    NOT NULL,
  task  TEXT    NOT NULL,
  token TEXT    NOT NULL,
  open  INTEGER NOT NULL CHECK (open IN (0, 1)),
  PRIMARY KEY (cut, run, task)
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

CREATE TRIGGER cut_effects_delete_input_json AFTER DELETE ON cut_effects
WHEN OLD.input_json >= '={' AND OLD.input_json < '=|' BEGIN
  INSERT INTO manifests VALUES (OLD.input_json, -1);
END;

CREATE TRIGGER cut_effects_insert_input_json AFTER INSERT ON cut_effects
WHEN NEW.input_json >= '={' AND NEW.input_json < '=|' BEGIN
  INSERT INTO manifests VALUES (NEW.input_json, 1);
END;

CREATE TRIGGER cut_effects_update_input_json AFTER UPDATE OF input_json ON cut_effects
WHEN (NEW.input_json >= '={' AND NEW.input_json < '=|') OR (OLD.input_json >= '={' AND OLD.input_json < '=|') BEGIN
  INSERT INTO manifests VALUES (OLD.input_json, -1), (NEW.input_json, 1);
END;

CREATE TABLE cut_members (
  cut     INTEGER NOT NULL REFERENCES cuts (position) ON DELETE CASCADE,
  address TEXT    NOT NULL,
  seq     INTEGER NOT NULL,
  PRIMARY KEY (cut, address)
) STRICT, WITHOUT ROWID;

CREATE INDEX cut_members_by_checkpoint ON cut_members (address, seq);

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

CREATE TRIGGER cut_messages_delete_message_json AFTER DELETE ON cut_messages
WHEN OLD.message_json >= '={' AND OLD.message_json < '=|' BEGIN
  INSERT INTO manifests VALUES (OLD.message_json, -1);
END;

CREATE TRIGGER cut_messages_insert_message_json AFTER INSERT ON cut_messages
WHEN NEW.message_json >= '={' AND NEW.message_json < '=|' BEGIN
  INSERT INTO manifests VALUES (NEW.message_json, 1);
END;

CREATE TRIGGER cut_messages_update_message_json AFTER UPDATE OF message_json ON cut_messages
WHEN (NEW.message_json >= '={' AND NEW.message_json < '=|') OR (OLD.message_json >= '={' AND OLD.message_json < '=|') BEGIN
  INSERT INTO manifests VALUES (OLD.message_json, -1), (NEW.message_json, 1);
END;

CREATE TABLE cut_timers (
  cut         INTEGER NOT NULL REFERENCES cuts (position) ON DELETE CASCADE,
  address     TEXT    NOT NULL,
  id          TEXT    NOT NULL,
  generation  TEXT    NOT NULL,
  due_at      INTEGER NOT NULL,
  action_json TEXT    NOT NULL,
  PRIMARY KEY (cut, address, id)
) STRICT, WITHOUT ROWID;

CREATE TRIGGER cut_timers_delete_action_json AFTER DELETE ON cut_timers
WHEN OLD.action_json >= '={' AND OLD.action_json < '=|' BEGIN
  INSERT INTO manifests VALUES (OLD.action_json, -1);
END;

CREATE TRIGGER cut_timers_insert_action_json AFTER INSERT ON cut_timers
WHEN NEW.action_json >= '={' AND NEW.action_json < '=|' BEGIN
  INSERT INTO manifests VALUES (NEW.action_json, 1);
END;

CREATE TRIGGER cut_timers_update_action_json AFTER UPDATE OF action_json ON cut_timers
WHEN (NEW.action_json >= '={' AND NEW.action_json < '=|') OR (OLD.action_json >= '={' AND OLD.action_json < '=|') BEGIN
  INSERT INTO manifests VALUES (OLD.action_json, -1), (NEW.action_json, 1);
END;

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

CREATE TABLE dead_letters (
  position     INTEGER PRIMARY KEY,
  id           TEXT    NOT NULL,
  at           INTEGER NOT NULL,
  address      TEXT    NOT NULL,
  reason       TEXT    NOT NULL,
  message_json TEXT    NOT NULL
) STRICT;

CREATE TRIGGER dead_letters_delete_texts AFTER DELETE ON dead_letters
WHEN (OLD.message_json >= '={' AND OLD.message_json < '=|') BEGIN
  INSERT INTO manifests VALUES (OLD.message_json, -1);
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

CREATE TABLE effects (
  address    TEXT    NOT NULL CHECK (address GLOB '?*/?*'),
  id         TEXT    NOT NULL,
  generation TEXT    NOT NULL,
  src        TEXT    NOT NULL,
  input_json TEXT    NOT NULL,
  attempt    INTEGER NOT NULL CHECK (attempt >= 1),
  started_at INTEGER NOT NULL,
  PRIMARY KEY (address, id)
) STRICT;

CREATE TRIGGER effects_delete_texts AFTER DELETE ON effects
WHEN (OLD.input_json >= '={' AND OLD.input_json < '=|') BEGIN
  INSERT INTO manifests VALUES (OLD.input_json, -1);
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

CREATE TRIGGER idempotency_delete_outcome_json AFTER DELETE ON idempotency
WHEN OLD.outcome_json >= '={' AND OLD.outcome_json < '=|' BEGIN
  INSERT INTO manifests VALUES (OLD.outcome_json, -1);
END;

CREATE TRIGGER idempotency_insert_outcome_json AFTER INSERT ON idempotency
WHEN NEW.outcome_json >= '={' AND NEW.outcome_json < '=|' BEGIN
  INSERT INTO manifests VALUES (NEW.outcome_json, 1);
END;

CREATE TRIGGER idempotency_update_outcome_json AFTER UPDATE OF outcome_json ON idempotency
WHEN (NEW.outcome_json >= '={' AND NEW.outcome_json < '=|') OR (OLD.outcome_json >= '={' AND OLD.outcome_json < '=|') BEGIN
  INSERT INTO manifests VALUES (OLD.outcome_json, -1), (NEW.outcome_json, 1);
END;

CREATE INDEX idempotency_waiting ON idempotency (correlation) WHERE correlation IS NOT NULL;

CREATE TABLE leases (
  name        TEXT    NOT NULL PRIMARY KEY,
  holder      TEXT    NOT NULL,
  token       INTEGER NOT NULL CHECK (token >= 1),
  epoch       INTEGER NOT NULL,
  acquired_at INTEGER NOT NULL,
  expires_at  INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE VIEW manifests (manifest, change) AS SELECT NULL, NULL;

CREATE TRIGGER manifests_insert INSTEAD OF INSERT ON manifests
WHEN NEW.manifest >= '={' AND NEW.manifest < '=|' BEGIN
  SELECT RAISE(ABORT, 'a text that begins like a manifest is none') WHERE NOT json_valid(substr(NEW.manifest, 2));
  UPDATE chunk_lists SET refs = refs + NEW.change
    WHERE name IN (SELECT value FROM json_each(substr(NEW.manifest, 2), '$.lists'));
  SELECT RAISE(ABORT, 'a list of chunks is missing') FROM json_each(substr(NEW.manifest, 2), '$.lists')
    WHERE NEW.change = 1 AND value NOT IN (SELECT name FROM chunk_lists);
END;

CREATE TABLE messages (
  position     INTEGER PRIMARY KEY,
  id           TEXT    NOT NULL UNIQUE,
  sender       TEXT    NOT NULL,
  receiver     TEXT    NOT NULL CHECK (receiver GLOB '?*/?*'),
  priority     INTEGER NOT NULL CHECK (priority BETWEEN 1 AND 5),
  sent_at      INTEGER NOT NULL,
  message_json TEXT    NOT NULL,
  correlation  TEXT,
  attempt      INTEGER,
  reply        INTEGER NOT NULL CHECK (reply IN (0, 1))
) STRICT;

CREATE TRIGGER messages_delete_texts AFTER DELETE ON messages
WHEN (OLD.message_json >= '={' AND OLD.message_json < '=|') BEGIN
  INSERT INTO manifests VALUES (OLD.message_json, -1);
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

CREATE TABLE owner (
  only_row INTEGER PRIMARY KEY CHECK (only_row = 1),
  epoch    INTEGER NOT NULL CHECK (epoch >= 0)
) STRICT;

CREATE TABLE pruned_runs (
  run TEXT NOT NULL PRIMARY KEY
) STRICT, WITHOUT ROWID;

CREATE TABLE runs (
  run          TEXT    NOT NULL PRIMARY KEY,
  title        TEXT    NOT NULL,
  state        TEXT    NOT NULL,
  total        INTEGER NOT NULL CHECK (total >= 0),
  created_at   INTEGER NOT NULL,
  updated_at   INTEGER NOT NULL,
  ended_at     INTEGER,
  details_json TEXT    NOT NULL
) STRICT;

CREATE TRIGGER runs_delete_texts AFTER DELETE ON runs
WHEN (OLD.details_json >= '={' AND OLD.details_json < '=|') BEGIN
  INSERT INTO manifests VALUES (OLD.details_json, -1);
END;

CREATE INDEX runs_ended ON runs (ended_at, run) WHERE ended_at IS NOT NULL;

CREATE TRIGGER runs_insert_texts AFTER INSERT ON runs
WHEN (NEW.details_json >= '={' AND NEW.details_json < '=|') BEGIN
  INSERT INTO manifests VALUES (NEW.details_json, 1);
END;

CREATE TRIGGER runs_update_texts AFTER UPDATE OF details_json ON runs
WHEN (NEW.details_json >= '={' AND NEW.details_json < '=|')
  OR (OLD.details_json >= '={' AND OLD.details_json < '=|') BEGIN
  INSERT INTO manifests VALUES (OLD.details_json, -1), (NEW.details_json, 1);
END;

CREATE TABLE steps (
  position     INTEGER PRIMARY KEY,
  scope        TEXT    NOT NULL,
  key          TEXT    NOT NULL,
  at           INTEGER NOT NULL,
  outcome_json TEXT    NOT NULL, kind TEXT NOT NULL DEFAULT 'step' CHECK (kind IN ('step', 'tx')), input_hash TEXT,
  UNIQUE (scope, key)
) STRICT;

CREATE TRIGGER steps_delete_texts AFTER DELETE ON steps
WHEN (OLD.outcome_json >= '={' AND OLD.outcome_json < '=|') BEGIN
  INSERT INTO manifests VALUES (OLD.outcome_json, -1);
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

CREATE TABLE store (
  only_row INTEGER PRIMARY KEY CHECK (only_row = 1),
  id       TEXT    NOT NULL CHECK (id GLOB 'store-[0-9a-f]*' AND length(id) = 38),
  commits  INTEGER NOT NULL CHECK (commits >= 0)
) STRICT;

CREATE TABLE stream_chunks (
  position   INTEGER PRIMARY KEY,
  stream     INTEGER NOT NULL REFERENCES streams (id),
  place      INTEGER NOT NULL CHECK (place >= 0),
  at         INTEGER NOT NULL,
  writer     TEXT    NOT NULL,
  epoch      INTEGER NOT NULL CHECK (epoch >= 1),
  seq        INTEGER NOT NULL CHECK (seq >= 1),
  value_json TEXT    NOT NULL,
  UNIQUE (stream, place),
  UNIQUE (stream, writer, epoch, seq)
) STRICT;

CREATE TABLE streams (
  id         INTEGER PRIMARY KEY,
  address    TEXT    NOT NULL,
  name       TEXT    NOT NULL,
  next       INTEGER NOT NULL CHECK (next >= 0),
  size       INTEGER NOT NULL CHECK (size >= 0),
  created_at INTEGER NOT NULL,
  updated_at INTEGER NOT NULL,
  closed_at  INTEGER,
  UNIQUE (address, name)
) STRICT;

CREATE TABLE tasks (
  run          TEXT    NOT NULL,
  task         TEXT    NOT NULL,
  title        TEXT    NOT NULL,
  state        TEXT    NOT NULL,
  agent        TEXT    NOT NULL,
  priority     INTEGER NOT NULL CHECK (priority BETWEEN 1 AND 5),
  unblocks     INTEGER NOT NULL CHECK (unblocks >= 0),
  position     INTEGER NOT NULL,
  attempts     INTEGER NOT NULL CHECK (attempts >= 0),
  reason       TEXT,
  updated_at   INTEGER NOT NULL,
  details_json TEXT    NOT NULL,
  claim_token  TEXT,
  claim_open   INTEGER NOT NULL DEFAULT 0 CHECK (claim_open IN (0, 1)),
  PRIMARY KEY (run, task)
) STRICT;

CREATE INDEX tasks_by_claim ON tasks (run, claim_token) WHERE claim_token IS NOT NULL;

CREATE INDEX tasks_by_position ON tasks (run, position, task);

CREATE INDEX tasks_by_state ON tasks (run, state, position, task);

CREATE TRIGGER tasks_delete_texts AFTER DELETE ON tasks
WHEN (OLD.details_json >= '={' AND OLD.details_json < '=|') BEGIN
  INSERT INTO manifests VALUES (OLD.details_json, -1);
END;

CREATE TRIGGER tasks_insert_texts AFTER INSERT ON tasks
WHEN (NEW.details_json >= '={' AND NEW.details_json < '=|') BEGIN
  INSERT INTO manifests VALUES (NEW.details_json, 1);
END;

CREATE INDEX tasks_to_claim ON tasks (run, agent, priority DESC, unblocks DESC, position, task)
  WHERE state = 'ready' AND claim_open = 0;

CREATE TRIGGER tasks_update_texts AFTER UPDATE OF details_json ON tasks
WHEN (NEW.details_json >= '={' AND NEW.details_json < '=|')
  OR (OLD.details_json >= '={' AND OLD.details_json < '=|') BEGIN
  INSERT INTO manifests VALUES (OLD.details_json, -1), (NEW.details_json, 1);
END;

CREATE TABLE timers (
  address     TEXT    NOT NULL CHECK (address GLOB '?*/?*'),
  id          TEXT    NOT NULL,
  generation  TEXT    NOT NULL,
  due_at      INTEGER NOT NULL,
  action_json TEXT    NOT NULL,
  PRIMARY KEY (address, id)
) STRICT, WITHOUT ROWID;

CREATE TRIGGER timers_delete_texts AFTER DELETE ON timers
WHEN (OLD.action_json >= '={' AND OLD.action_json < '=|') BEGIN
  INSERT INTO manifests VALUES (OLD.action_json, -1);
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

CREATE VIEW troupe_actors AS
SELECT a.address, a.machine, a.version, a.status,
  CASE WHEN json_valid(c.snapshot_json) THEN c.snapshot_json ->> '$.value' END AS state,
  a.seq AS turns, a.reason,
  strftime('%Y-%m-%dT%H:%M:%fZ', a.updated_at / 1000.0, 'unixepoch') AS updated
FROM actors AS a
LEFT JOIN checkpoints AS c ON c.address = a.address AND c.seq = a.seq;

CREATE VIEW troupe_attempts AS
SELECT run, task, attempt, outcome, reason,
  strftime('%Y-%m-%dT%H:%M:%fZ', started_at / 1000.0, 'unixepoch') AS started,
  strftime('%Y-%m-%dT%H:%M:%fZ', ended_at / 1000.0, 'unixepoch') AS ended,
  round((ended_at - started_at) / 1000.0, 3) AS seconds
FROM attempts;

CREATE VIEW troupe_audit AS
SELECT kind, id, address AS receiver, type, by,
  strftime('%Y-%m-%dT%H:%M:%fZ', at / 1000.0, 'unixepoch') AS at, details_json AS details
FROM audit;

CREATE VIEW troupe_dead_letters AS
SELECT id, address AS receiver, reason,
  CASE WHEN json_valid(message_json) THEN message_json ->> '$.type' END AS type,
  strftime('%Y-%m-%dT%H:%M:%fZ', at / 1000.0, 'unixepoch') AS at, message_json AS message
FROM dead_letters;

CREATE VIEW troupe_effects AS
SELECT address, id, src AS effect, attempt,
  strftime('%Y-%m-%dT%H:%M:%fZ', started_at / 1000.0, 'unixepoch') AS started
FROM effects;

CREATE VIEW troupe_messages AS
SELECT id, sender, receiver,
  CASE priority WHEN 1 THEN 'low' WHEN 2 THEN 'normal' WHEN 3 THEN 'high' WHEN 4 THEN 'urgent' ELSE 'critical' END
    AS priority,
  CASE WHEN json_valid(message_json) THEN message_json ->> '$.type' END AS type,
  strftime('%Y-%m-%dT%H:%M:%fZ', sent_at / 1000.0, 'unixepoch') AS sent, message_json AS message
FROM messages;

CREATE VIEW troupe_runs AS
SELECT run, title, state, total AS tasks,
  strftime('%Y-%m-%dT%H:%M:%fZ', created_at / 1000.0, 'unixepoch') AS created,
  strftime('%Y-%m-%dT%H:%M:%fZ', ended_at / 1000.0, 'unixepoch') AS ended,
  round((coalesce(ended_at, updated_at) - created_at) / 1000.0, 3) AS seconds
FROM runs;

CREATE VIEW troupe_streams AS
SELECT s.address, s.name AS stream, c.place AS "offset", c.writer, c.epoch, c.seq,
  strftime('%Y-%m-%dT%H:%M:%fZ', c.at / 1000.0, 'unixepoch') AS at,
  s.closed_at IS NOT NULL AS closed, c.value_json AS value
FROM streams AS s JOIN stream_chunks AS c ON c.stream = s.id;

CREATE VIEW troupe_tasks AS
SELECT run, task, title, state, agent,
  CASE priority WHEN 1 THEN 'low' WHEN 2 THEN 'normal' WHEN 3 THEN 'high' WHEN 4 THEN 'urgent' ELSE 'critical' END
    AS priority,
  attempts, reason,
  strftime('%Y-%m-%dT%H:%M:%fZ', updated_at / 1000.0, 'unixepoch') AS updated
FROM tasks;

CREATE VIEW troupe_timers AS
SELECT address, id, strftime('%Y-%m-%dT%H:%M:%fZ', due_at / 1000.0, 'unixepoch') AS due
FROM timers;

CREATE VIEW troupe_turns AS
SELECT address, seq AS turn, kind,
  CASE WHEN json_valid(event_json) THEN event_json ->> '$.type' END AS type,
  CASE WHEN json_valid(event_json) THEN event_json ->> '$.meta.from' END AS sender,
  CASE WHEN json_valid(event_json) THEN event_json ->> '$.meta.id' END AS cause,
  strftime('%Y-%m-%dT%H:%M:%fZ', at / 1000.0, 'unixepoch') AS at, event_json AS event
FROM checkpoints;
