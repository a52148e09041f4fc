-- 0007 streams: what actors write for others to read, in order.

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

-- Texts here are never cut into pieces: they are short. A writer that is started again finds what it has written by the
-- second key, which also forbids to store any of it twice.
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

CREATE VIEW troupe_streams AS
SELECT s.address, s.name AS stream, c.place AS "offset", c.writer, c.epoch, c.seq,
  strftime('%Y-%m-%dT%H:%M:%fZ', c.at / 1000.0, 'unixepoch') AS at,
  s.closed_at IS NOT NULL AS closed, c.value_json AS value
FROM streams AS s JOIN stream_chunks AS c ON c.stream = s.id;
