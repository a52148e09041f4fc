/** `npm run faults`: everything that takes minutes, too. Otherwise each loop of faults is gone through in part. */
export const ALL_FAULTS = process.env['FAULTS'] === 'all';
