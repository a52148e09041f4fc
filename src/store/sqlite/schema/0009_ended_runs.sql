-- 0009 ended_runs: what is old is found without looking at every run.

CREATE INDEX runs_ended ON runs (ended_at, run) WHERE ended_at IS NOT NULL;
