import { spawn } from 'node:child_process';
import { rmSync } from 'node:fs';
const path='/tmp/s/soak/x.db'; rmSync('/tmp/s/soak',{recursive:true,force:true});
for (let i=0;i<30;i++){
  const c=spawn(process.execPath,['test/store/sqlite/writer.child.ts',path,i%2?'full':'normal'],{stdio:['ignore','pipe','pipe']});
  let n=0;let err='';
  c.stderr.on('data',d=>err+=d);
  const limit=40+60*(i%8);
  c.stdout.on('data',(d:Buffer)=>{n+=d.toString().split('\n').length-1; if(n>limit)c.kill('SIGKILL')});
  const code=await new Promise(r=>c.on('exit',(a,b)=>r(a??b)));
  console.log(i,n,code,err.slice(0,1500));
  if (code!=='SIGKILL') break;
}
