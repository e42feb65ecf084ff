// Anchor: Node hypercore and corestore, on disk (--dir, or a temporary directory that is removed at the end).
// --what=replicate --mode=server appends --blocks of --size bytes, then listens and prints {port, key};
//   --mode=client fetches all of it by --key (default: the key of the server, whose seed is fixed) into an empty
//   directory over secret-stream and prints the figures; the clock runs from before the connect to the last block
//   stored, with --read=1 until each block has been read back as well. The server serves one client, then it ends
// --what=append appends one block after the other, each awaited; --what=append-batch 64 blocks (--batch) at a time
// --what=feeds makes --n named cores of --blocks blocks in a process of its own, then opens the store and the first of
//   them in this one; --open=all (or a number) opens that many more, with bytesPerFeed
const fs = require('fs'); const net = require('net'); const os = require('os'); const path = require('path')
const { spawnSync } = require('child_process')
const Hypercore = require('hypercore'); const Corestore = require('corestore')
const SecretStream = require('@hyperswarm/secret-stream'); const crypto = require('hypercore-crypto')
const args = Object.fromEntries(process.argv.slice(2).map(a => a.replace(/^--/, '').split('=')))
const what = args.what || 'replicate'
const count = Number(args.blocks || (what.startsWith('feeds') ? 1 : 20000))
const size = Number(args.size || (what.startsWith('feeds') ? 100 : 1024))
const batch = Number(args.batch || 64)
const n = Number(args.n || 10000)
const keyPair = crypto.keyPair(Buffer.alloc(32, 7))
const dir = args.dir || fs.mkdtempSync(path.join(os.tmpdir(), 'node-replicate-'))
const clean = () => { if (!args.dir) fs.rmSync(dir, { recursive: true, force: true }) }
process.on('exit', clean)
for (const name of ['SIGINT', 'SIGTERM']) process.on(name, () => process.exit(1))
process.on('unhandledRejection', e => { console.error(e); process.exit(1) })
const block = i => { const b = Buffer.alloc(size, i & 255); if (size >= 4) b.writeUInt32LE(i); return b }
const seconds = t0 => Number(process.hrtime.bigint() - t0) / 1e9
const rss = () => process.memoryUsage().rss
const print = o => console.log(JSON.stringify(o))
const done = o => { clean(); print(o); process.exit(0) } // cleaned first: who reads the figures may kill us at once
const rates = sec => ({ what, blocks: count, size, blocksPerSec: count / sec, MBps: count * size / 1e6 / sec, sec, residentBytes: rss(), peakBytes: process.resourceUsage().maxRSS * 1024 })

if (what === 'replicate') { if (args.mode === 'server') serve(); else fetch() }
else if (what === 'append' || what === 'append-batch') append(what === 'append' ? 1 : batch)
else if (what === 'feeds') feeds()
else if (what === 'feeds-make') make()
else throw new Error('unknown --what=' + what)

function manifest () { return { version: 1, signers: [{ publicKey: keyPair.publicKey }] } }
async function fill (core, step) {
  for (let i = 0; i < count; i += step) {
    if (step === 1) await core.append(block(i))
    else await core.append(Array.from({ length: Math.min(step, count - i) }, (_, k) => block(i + k)))
  }
}
async function serve () {
  const core = new Hypercore(dir, null, { keyPair, manifest: manifest() })
  await core.ready()
  await fill(core, 256)
  const srv = net.createServer(s => {
    s.setNoDelay(true)
    const x = new SecretStream(false, s)
    x.on('error', () => {})
    x.once('open', () => x.once('close', async () => { await core.close(); clean(); process.exit(0) }))
    core.replicate(x)
  })
  srv.listen(Number(args.port || 0), '127.0.0.1', () => print({ port: srv.address().port, key: core.key.toString('hex') }))
}
async function fetch () {
  const core = new Hypercore(dir, args.key ? Buffer.from(args.key, 'hex') : Hypercore.key(manifest()))
  await core.ready()
  const t0 = process.hrtime.bigint()
  const s = net.connect(Number(args.port), '127.0.0.1'); s.setNoDelay(true)
  const x = new SecretStream(true, s)
  x.on('error', e => { console.error(e); process.exit(1) })
  core.once('peer-add', async () => {
    while (core.length < count) await core.update({ wait: true })
    await core.download({ start: 0, end: count }).done()
    if (args.read) for (let i = 0; i < count; i++) await core.get(i, { wait: false })
    const sec = seconds(t0)
    const last = await core.get(count - 1, { wait: false })
    if (core.contiguousLength < count || !last.equals(block(count - 1))) throw new Error('not everything arrived: ' + core.contiguousLength)
    const figures = rates(sec)
    x.removeAllListeners('error'); x.on('error', () => {}); x.destroy()
    while (await listening()) await new Promise(resolve => setTimeout(resolve, 10))
    done(figures)
  })
  core.replicate(x)
}
// whether the server is still there: who kills both at the first figure leaves its directory behind
function listening () {
  return new Promise(resolve => {
    const s = net.connect(Number(args.port), '127.0.0.1', () => { s.destroy(); resolve(true) })
    s.on('error', () => resolve(false))
  })
}
async function append (step) {
  const core = new Hypercore(dir, null, { keyPair, manifest: manifest() })
  await core.ready()
  const t0 = process.hrtime.bigint()
  await fill(core, step)
  const figures = { ...rates(seconds(t0)), batch: step }
  await core.close()
  done(figures)
}
async function make () {
  const store = new Corestore(dir)
  for (let i = 0; i < n; i += 100) {
    await Promise.all(Array.from({ length: Math.min(100, n - i) }, async (_, k) => {
      const core = store.get({ name: 'feed ' + (i + k) }); await core.ready()
      if (count) await core.append(Array.from({ length: count }, (_, j) => block(j)))
      await core.close()
    }))
  }
  await store.close()
}
async function feeds () {
  const made = process.hrtime.bigint()
  const child = spawnSync(process.execPath, [__filename, '--what=feeds-make', '--dir=' + dir, '--n=' + n, '--blocks=' + count, '--size=' + size], { stdio: ['ignore', 'ignore', 'inherit'] })
  if (child.status !== 0) throw new Error('the store was not made')
  const createSec = seconds(made)
  if (global.gc) global.gc()
  const base = rss()
  const t0 = process.hrtime.bigint()
  const store = new Corestore(dir); await store.ready()
  const openMs = seconds(t0) * 1e3
  const first = store.get({ name: 'feed 0' }); await first.ready()
  const firstCoreMs = seconds(t0) * 1e3
  if (first.length !== count) throw new Error('the first core is empty')
  if (global.gc) global.gc()
  const figures = { what, n, openMs, firstCoreMs, createSec, storeBytes: rss() - base, residentBytes: rss() }
  if (args.open) {
    const some = args.open === 'all' ? n : Number(args.open)
    const before = rss(); const t1 = process.hrtime.bigint(); const keep = []
    for (let i = 0; i < some; i++) { const core = store.get({ name: 'feed ' + i }); await core.ready(); keep.push(core) }
    const openAllSec = seconds(t1)
    if (global.gc) global.gc()
    Object.assign(figures, { opened: keep.length, openAllSec, bytesPerFeed: Math.round((rss() - before) / some), residentBytes: rss() })
  }
  done(figures)
}
