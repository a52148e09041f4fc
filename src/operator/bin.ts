#!/usr/bin/env node
import '../require-node.ts';

// Not before the line above has looked: what this loads is native and crashes on an older Node.
const { explainCrash, runCli } = await import('./cli.ts');

// A bug of ours, whoever throws it: said like any other error. What was stored is there, and processes that are left
// are ended by the next troupe.
process.on('uncaughtException', (error) => {
  process.exit(explainCrash(error, process));
});

process.exitCode = await runCli({
  argv: process.argv.slice(2),
  cwd: process.cwd(),
  env: process.env,
  stdout: process.stdout,
  stderr: process.stderr,
});
