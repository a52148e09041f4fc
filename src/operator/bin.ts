#!/usr/bin/env node
import '../require-node.ts';

// Not before the line above has looked: what this loads is native and crashes on an older Node.
const { runCli } = await import('./cli.ts');

process.exitCode = await runCli({
  argv: process.argv.slice(2),
  cwd: process.cwd(),
  env: process.env,
  stdout: process.stdout,
  stderr: process.stderr,
});
