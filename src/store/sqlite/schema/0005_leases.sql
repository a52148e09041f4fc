-- 0005 leases: who may write, with fencing tokens.

-- One row. Each opening takes the next epoch; a transaction of an older one is refused, so that a process that was
-- frozen while another took the store over can do no harm when it goes on.
CREATE TABLE owner (
  only_row INTEGER PRIMARY KEY CHECK (only_row = 1),
  epoch    INTEGER NOT NULL CHECK (epoch >= 0)
) STRICT;
INSERT INTO owner (only_row, epoch) VALUES (1, 0);

-- A lease that ended keeps its row, so that its next token is greater than every one before.
CREATE TABLE leases (
  name        TEXT    NOT NULL PRIMARY KEY,
  holder      TEXT    NOT NULL,
  token       INTEGER NOT NULL CHECK (token >= 1),
  epoch       INTEGER NOT NULL,
  acquired_at INTEGER NOT NULL,
  expires_at  INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
