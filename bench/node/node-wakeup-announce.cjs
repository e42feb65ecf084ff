#!/usr/bin/env node
'use strict'
// One announce to many peers: streams joined in memory, without encryption.
//   node node-wakeup-announce.cjs --n=1000 --rounds=50
const { Duplex } = require('streamx')
const Wakeup = require('protomux-wakeup')
const args = Object.fromEntries(process.argv.slice(2).map((x) => x.replace(/^--/, '').split('=')))
const peers = Number(args.n || 1000)
const rounds = Number(args.rounds || 50)
const capability = Buffer.alloc(32, 0x63)
const head = { key: Buffer.alloc(32, 0x07), length: 1337 }

class End extends Duplex {
  constructor (isInitiator) {
    super({ highWaterMark: 1 << 24 })
    this.isInitiator = isInitiator
    this.handshakeHash = Buffer.alloc(64)
    this.connected = true
    this.noiseStream = this
    this.userData = null
    this.other = null
  }
  _write (data, cb) { this.other.push(data); cb(null) }
  alloc (n) { return Buffer.allocUnsafe(n) }
}
function joined () {
  const a = new End(true); const b = new End(false)
  a.other = b; b.other = a
  return [a, b]
}
const middle = (list) => list.sort((x, y) => x - y)[list.length >> 1]

async function main () {
  let heard = 0; let resolve = null
  const count = () => { if (++heard === peers) resolve() }
  const all = () => new Promise((done) => { heard = 0; resolve = done })
  const hub = new Wakeup(); const leaves = new Wakeup()
  const met = all()
  const session = hub.session(capability, { onpeeradd: count })
  leaves.session(capability, { onannounce: count })
  for (let i = 0; i < peers; i++) {
    const [ours, theirs] = joined()
    hub.addStream(ours); leaves.addStream(theirs)
  }
  await met
  const total = []; const sent = []
  for (let i = 0; i < rounds; i++) {
    const everybody = all()
    const start = process.hrtime.bigint()
    for (const peer of session.peers) session.announce(peer, [head])
    sent.push(Number(process.hrtime.bigint() - start))
    await everybody
    total.push(Number(process.hrtime.bigint() - start))
  }
  const us = (list) => Math.round(middle(list) / 10 / peers) / 100
  console.log(JSON.stringify({ usPerPeer: us(total), usPerSend: us(sent) }))
  hub.destroy(); leaves.destroy()
  process.exit(0)
}
main()
