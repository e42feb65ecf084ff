#!/usr/bin/env node
'use strict'
// encrypted-peer: one hypercore with block encryption, one TCP endpoint.
//
//   node encrypted-peer.cjs --secret HEX32 --blocks N [--compat] [--listen 0]      own a core and serve it
//   node encrypted-peer.cjs --secret HEX32 --key HEX32 --connect PORT --blocks N   read N blocks of it, then exit
//   --dir PATH (required) | --timeout SEC (30)
//   stdin (serve): every line is appended as one block; '!truncate N' truncates
const net = require('net')
const Hypercore = require('hypercore')
const NoiseSecretStream = require('@hyperswarm/secret-stream')
const crypto = require('hypercore-crypto')

console.log = console.error
const argv = {}
for (let i = 2; i < process.argv.length; i++) {
  const name = process.argv[i].replace(/^--/, '')
  const next = process.argv[i + 1]
  argv[name] = next === undefined || next.startsWith('--') ? true : process.argv[++i]
}
setTimeout(() => process.exit(2), Number(argv.timeout || 30) * 1000).unref()
main().catch((err) => { emit('error', { message: err.message }); process.exit(1) })

async function main () {
  const options = { encryption: { key: Buffer.from(argv.secret, 'hex') }, compat: !!argv.compat }
  if (!argv.key) options.keyPair = crypto.keyPair()
  const core = new Hypercore(argv.dir, argv.key ? Buffer.from(argv.key, 'hex') : null, options)
  await core.ready()
  core.on('truncate', (to, fork) => emit('truncate', { to, fork }))
  const count = Number(argv.blocks || 0)
  if (!argv.key) for (let i = 0; i < count; i++) await core.append(Buffer.from('secret #' + i))
  emit('ready', { key: core.key.toString('hex'), byteLength: core.byteLength, length: core.length })
  const wire = (socket, dialled) => {
    socket.on('error', () => {})
    const stream = new NoiseSecretStream(dialled, socket)
    stream.on('error', () => {})
    core.replicate(stream)
  }
  if (argv.connect) {
    const socket = net.connect(Number(argv.connect), '127.0.0.1', () => wire(socket, true))
    for (let i = 0; i < count; i++) emit('block', { index: i, text: (await core.get(i)).toString() })
    emit('done', { byteLength: core.byteLength })
    return
  }
  const server = net.createServer((socket) => wire(socket, false))
  server.listen(Number(argv.listen || 0), '127.0.0.1', () => emit('listening', { port: server.address().port }))
  let rest = ''
  let chain = Promise.resolve()
  process.stdin.on('data', (data) => {
    const lines = (rest + data).split('\n')
    rest = lines.pop()
    for (const line of lines) {
      chain = chain.then(() => line.startsWith('!truncate ') ? core.truncate(Number(line.slice(10))) : core.append(Buffer.from(line)))
    }
  })
}

function emit (event, data) { process.stdout.write(JSON.stringify({ event, ...data }) + '\n') }
