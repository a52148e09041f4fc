-- 0003 retention: runs that are being forgotten.

-- The row of such a run is gone; what is left of it goes bit by bit, also after a crash.
CREATE TABLE pruned_runs (
  run TEXT NOT NULL PRIMARY KEY
) STRICT, WITHOUT ROWID;

-- To look into a store with any SQLite tool, read-only. Their names and columns are kept (docs/views.md); the tables may
-- change. Times are UTC. A long or encrypted text is not readable here: its state is NULL, or its text begins with "=".

CREATE VIEW troupe_runs AS
SELECT run, title, state, total AS tasks,
  strftime('%Y-%m-%dT%H:%M:%fZ', created_at / 1000.0, 'unixepoch') AS created,
  strftime('%Y-%m-%dT%H:%M:%fZ', ended_at / 1000.0, 'unixepoch') AS ended,
  round((coalesce(ended_at, updated_at) - created_at) / 1000.0, 3) AS seconds
FROM runs;

CREATE VIEW troupe_tasks AS
SELECT run, task, title, state, agent,
  CASE priority WHEN 1 THEN 'low' WHEN 2 THEN 'normal' WHEN 3 THEN 'high' WHEN 4 THEN 'urgent' ELSE 'critical' END
    AS priority,
  attempts, reason,
  strftime('%Y-%m-%dT%H:%M:%fZ', updated_at / 1000.0, 'unixepoch') AS updated
FROM tasks;

CREATE VIEW troupe_attempts AS
SELECT run, task, attempt, outcome, reason,
  strftime('%Y-%m-%dT%H:%M:%fZ', started_at / 1000.0, 'unixepoch') AS started,
  strftime('%Y-%m-%dT%H:%M:%fZ', ended_at / 1000.0, 'unixepoch') AS ended,
  round((ended_at - started_at) / 1000.0, 3) AS seconds
FROM attempts;

CREATE VIEW troupe_actors AS
SELECT a.address, a.machine, a.version, a.status,
  CASE WHEN json_valid(c.snapshot_json) THEN c.snapshot_json ->> '$.value' END AS state,
  a.seq AS turns, a.reason,
  strftime('%Y-%m-%dT%H:%M:%fZ', a.updated_at / 1000.0, 'unixepoch') AS updated
FROM actors AS a
LEFT JOIN checkpoints AS c ON c.address = a.address AND c.seq = a.seq;

CREATE VIEW troupe_messages AS
SELECT id, sender, receiver,
  CASE priority WHEN 1 THEN 'low' WHEN 2 THEN 'normal' WHEN 3 THEN 'high' WHEN 4 THEN 'urgent' ELSE 'critical' END
    AS priority,
  CASE WHEN json_valid(message_json) THEN message_json ->> '$.type' END AS type,
  strftime('%Y-%m-%dT%H:%M:%fZ', sent_at / 1000.0, 'unixepoch') AS sent, message_json AS message
FROM messages;

CREATE VIEW troupe_timers AS
SELECT address, id, strftime('%Y-%m-%dT%H:%M:%fZ', due_at / 1000.0, 'unixepoch') AS due
FROM timers;

CREATE VIEW troupe_effects AS
SELECT address, id, src AS effect, attempt,
  strftime('%Y-%m-%dT%H:%M:%fZ', started_at / 1000.0, 'unixepoch') AS started
FROM effects;

CREATE VIEW troupe_dead_letters AS
SELECT id, address AS receiver, reason,
  CASE WHEN json_valid(message_json) THEN message_json ->> '$.type' END AS type,
  strftime('%Y-%m-%dT%H:%M:%fZ', at / 1000.0, 'unixepoch') AS at, message_json AS message
FROM dead_letters;
