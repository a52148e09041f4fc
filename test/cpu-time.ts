/**
 * Processor time this process has used, in milliseconds: for tests that something is not quadratic. Unlike the
 * time on the wall it does not grow when the machine has other things to do.
 */
export function cpuTimeMs(): number {
  const { user, system } = process.cpuUsage();
  return (user + system) / 1000;
}
