// Latency: --mode=server answers every request on one Protomux channel; --mode=client asks --count times, one at a time.
const net = require('net')
const SecretStream = require('@hyperswarm/secret-stream')
const Protomux = require('protomux')
const c = require('compact-encoding')
const args = Object.fromEntries(process.argv.slice(2).map(a => a.replace(/^--/, '').split('=')))
const count = Number(args.count || 20000)
const size = Number(args.size || 100)
function channel (stream, onmessage) {
  const ch = Protomux.from(stream).createChannel({ protocol: 'bench' })
  const m = ch.addMessage({ encoding: c.buffer, onmessage: (value) => onmessage(m, value) })
  ch.open()
  return m
}
if (args.mode === 'server') {
  const srv = net.createServer(s => {
    s.setNoDelay(true)
    const n = new SecretStream(false, s)
    n.on('error', () => {})
    channel(n, (m, value) => m.send(value))
  }).listen(0, '127.0.0.1', () => console.log(JSON.stringify({ port: srv.address().port })))
} else {
  const s = net.connect(Number(args.port), '127.0.0.1'); s.setNoDelay(true)
  const n = new SecretStream(true, s)
  n.on('error', e => { console.error(e); process.exit(1) })
  n.once('open', () => {
    const request = Buffer.alloc(size, 1)
    let answered = 0
    let t0 = process.hrtime.bigint()
    const m = channel(n, (m) => {
      if (answered++ === 0) t0 = process.hrtime.bigint() // the first answer also waited for the channel to open
      if (answered <= count) { m.send(request); return }
      const sec = Number(process.hrtime.bigint() - t0) / 1e9
      console.log(JSON.stringify({ what: 'round-trip', count, perSec: count / sec, sec })); process.exit(0)
    })
    m.send(request)
  })
}
