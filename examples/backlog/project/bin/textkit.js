#!/usr/bin/env node
import { readFileSync } from 'node:fs';
import { runCli } from '../src/cli.js';

const { code, out, err } = runCli(process.argv.slice(2), () => readFileSync(0, 'utf8'));
process.stdout.write(out);
process.stderr.write(err);
process.exitCode = code;
