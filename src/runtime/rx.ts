import { createRequire } from 'node:module';
import type * as Rx from 'rxjs';

const require = createRequire(import.meta.url);

/**
 * RxJS, loaded when the first observable is asked for: its 223 files are a fifth of what it takes to load Troupe, and
 * whoever listens with `on` or reads with `for await` needs none of them. The same instance as that of `import 'rxjs'`.
 */
export const rx = (): typeof Rx => require('rxjs') as typeof Rx;
