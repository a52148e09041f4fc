-- 0001 core: actors and their checkpoints, what waits to be done, and the rows to query a run by.

-- One row, in the first table, so that it lies on page 2. Every transaction that writes counts itself here:
-- thereby page 2 is in every write-ahead log, and a log says whose it is and where it goes on from
-- (log-check.ts reads it, and knows that only_row, id and commits are all the columns, in this order).
CREATE TABLE store (
  only_row INTEGER PRIMARY KEY CHECK (only_row = 1),
  id       TEXT    NOT NULL CHECK (id GLOB 'store-[0-9a-f]*' AND length(id) = 38),
  commits  INTEGER NOT NULL CHECK (commits >= 0)
) STRICT;
INSERT INTO store (only_row, id, commits) VALUES (1, 'store-' || lower(hex(randomblob(16))), 0);

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

-- With a rowid: snapshots are long, and rows that are appended cost less than rows that are sorted in.
CREATE TABLE checkpoints (
  address       TEXT    NOT NULL CHECK (address GLOB '?*/?*'),
  seq           INTEGER NOT NULL CHECK (seq >= 0),
  at            INTEGER NOT NULL,
  kind          TEXT    NOT NULL CHECK (kind IN ('auto', 'manual', 'milestone', 'error', 'rollback')),
  label         TEXT,
  event_json    TEXT,
  snapshot_json TEXT    NOT NULL,
  PRIMARY KEY (address, seq)
) STRICT;

-- Outbox and inbox in one. The order of the rowids is the order of the commits.
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

CREATE TABLE timers (
  address     TEXT    NOT NULL CHECK (address GLOB '?*/?*'),
  id          TEXT    NOT NULL,
  generation  TEXT    NOT NULL,
  due_at      INTEGER NOT NULL,
  action_json TEXT    NOT NULL,
  PRIMARY KEY (address, id)
) STRICT, WITHOUT ROWID;

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

CREATE TABLE steps (
  position     INTEGER PRIMARY KEY,
  scope        TEXT    NOT NULL,
  key          TEXT    NOT NULL,
  at           INTEGER NOT NULL,
  outcome_json TEXT    NOT NULL,
  UNIQUE (scope, key)
) STRICT;

-- Append-only, without a unique id: a message that is sent again and dies again is two letters.
CREATE TABLE dead_letters (
  position     INTEGER PRIMARY KEY,
  id           TEXT    NOT NULL,
  at           INTEGER NOT NULL,
  address      TEXT    NOT NULL,
  reason       TEXT    NOT NULL,
  message_json TEXT    NOT NULL
) STRICT;

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

-- claim_token stays after the claim has ended, so that the same token is answered with the same tasks.
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
CREATE INDEX tasks_by_position ON tasks (run, position, task);
CREATE INDEX tasks_by_state ON tasks (run, state, position, task);
CREATE INDEX tasks_to_claim ON tasks (run, agent, priority DESC, unblocks DESC, position, task)
  WHERE state = 'ready' AND claim_open = 0;
CREATE INDEX tasks_by_claim ON tasks (run, claim_token) WHERE claim_token IS NOT NULL;

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
