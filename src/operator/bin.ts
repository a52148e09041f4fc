#!/usr/bin/env node
import '../require-node.ts';

// Not before the line above has looked: what this loads is native and crashes on an older Node.
const { runCli } = await import('./cli.ts');

// A bug of ours, whoever throws it: said like any other error. What was stored is there, and processes that are left
// are ended by the next troupe.
process.on('uncaughtException', (error) => {
  import('./explain.ts').then(
    ({ explainCrash }) => process.exit(explainCrash(error, process)),
    (why: unknown) => {
      process.stderr.write(`troupe: ${String(error)}\n${String(why)}\n`);
      process.exit(42);
    },
  );
});

process.exitCode = await runCli({
  argv: process.argv.slice(2),
  cwd: process.cwd(),
  env: process.env,
  stdout: process.stdout,
  stderr: process.stderr,
});
