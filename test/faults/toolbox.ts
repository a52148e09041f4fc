import { execFileSync, spawnSync } from 'node:child_process';

/*
 * Ways to make a machine fail beneath a process that does not know of it. Each is a program that runs another one:
 * the `under` of a `Life`. What a machine does not have is not hidden: its tests are skipped by name, with the reason.
 */

/** Whatever `vitest` gives a test to skip itself with. */
type Skip = (note?: string) => unknown;

const works = (program: string, ...args: readonly string[]): boolean =>
  spawnSync(program, args).status === 0;

/** Skips the test unless a user and a mount namespace can be had: small, read-only and other disks need them. */
export function needNamespaces(skip: Skip): void {
  if (!works('unshare', '-Urm', 'true')) skip('unshare -Urm does not work here');
}

/** Skips the test unless system calls can be made to fail. */
export function needStrace(skip: Skip): void {
  const [program = '', ...inject] = injecting('fsync:error=EIO');
  if (!works(program, ...inject, 'true')) skip('strace, or its inject, does not work here');
}

const ON_SMALL_DISK = `
set -e
directory=$1; spare=$2; inodes=$3; shift 3
mkdir -p "$directory"
kept=$(mktemp -d "$directory.kept-XXXXXX")
cp -a "$directory/." "$kept"
mount -t tmpfs -o size=64m,nr_inodes=100000 tmpfs "$directory"
cp -a "$kept/." "$directory"
used() { df --output="$1" "$directory" | tail -n 1; }
space=$(( ($(used used) + spare) * 1024 ))
[ "$inodes" = any ] && nodes=100000 || nodes=$(( $(used iused) + inodes ))
mount -o "remount,size=$space,nr_inodes=$nodes" "$directory"
set +e
"$@"
code=$?
set -e
rm -rf "$kept"
mkdir "$kept"
cp -a "$directory/." "$kept"
umount -l "$directory"
find "$directory" -mindepth 1 -delete
cp -a "$kept/." "$directory"
rm -rf "$kept"
exit $code`;

/** How much more fits on a disk than is on it at the beginning. */
export interface Spare {
  readonly kilobytes: number;
  /** Files and directories. Default: any number. */
  readonly inodes?: number;
}

/**
 * A disk of its own for a directory, for the time that the program runs. What was in there is on it, and what is on it
 * in the end is in the directory afterwards, with all the space there is.
 */
export function onSmallDisk(directory: string, { kilobytes, inodes }: Spare): readonly string[] {
  const sizes = [directory, String(kilobytes), String(inodes ?? 'any')];
  return ['unshare', '-Urm', 'bash', '-c', ON_SMALL_DISK, 'bash', ...sizes];
}

/** Gives the disk of a running `onSmallDisk` space enough. */
export function makeSpace({ pid }: { readonly pid: number }, directory: string): void {
  const enter = ['-t', String(pid), '-U', '-m', '--preserve-credentials'];
  const options = 'remount,size=64m,nr_inodes=100000';
  execFileSync('nsenter', [...enter, 'mount', '-o', options, directory]);
}

/** A file system that may only be looked at. */
export function onReadOnlyDisk(directory: string): readonly string[] {
  const script = 'mount --bind "$1" "$1" && mount -o remount,ro,bind "$1" && shift && exec "$@"';
  return ['unshare', '-Urm', 'bash', '-c', script, 'bash', directory];
}

/**
 * Makes system calls fail. Every thread and every process below counts its calls by itself; only calls on `files`
 * count, if there are any.
 * @param inject as strace takes it: `pwrite64:error=ENOSPC:when=40+`
 */
export function injecting(inject: string, ...files: readonly string[]): readonly string[] {
  const [calls = ''] = inject.split(':');
  return injectingAndWatching(inject, '/dev/null', [calls], ...files);
}

/** Like `injecting`, and writes down these system calls, one a line, with the thread that made them. */
export function injectingAndWatching(
  inject: string,
  log: string,
  watched: readonly string[],
  ...files: readonly string[]
): readonly string[] {
  const paths = files.flatMap((file) => ['-P', file]);
  const trace = ['-e', `trace=${watched.join(',')}`, '-e', `inject=${inject}`];
  return ['strace', '-f', '--seccomp-bpf', '-qq', '-o', log, ...trace, ...paths];
}

/** Limits of the shell: `-f 600` (blocks of 1 024 bytes in a file), `-n 64` (open files). */
export function withLimit(flag: string, limit: number): readonly string[] {
  return ['bash', '-c', `ulimit ${flag} ${limit} && exec "$@"`, 'bash'];
}

/** A process to which permissions apply, also if we are root. */
export function withoutPrivileges(): readonly string[] {
  return process.getuid?.() === 0
    ? ['setpriv', '--bounding-set=-dac_override,-dac_read_search,-fowner']
    : [];
}
