'use strict'
// A peer that serves, requests and punches as it is told to. Arguments: `stream` to read a stream of texts, a port.

const Peer = require('./peer')
const { obey, say } = require('./told')

const [how, port] = process.argv.slice(2)
const peer = new Peer({ stream: how === 'stream', port: +port || 0 })

// {"fail": message} fails, {"bytes": n} gives a text of that length, anything else comes back.
peer.serve((payload, from, reply) => {
  say('request', { from: from.port })
  if (payload && payload.fail) reply(new Error(payload.fail), null)
  else if (payload && payload.bytes) reply(null, 'x'.repeat(payload.bytes))
  else reply(null, payload)
})
peer.on('punched', from => say('punched', { from: from.port }))
peer.on('message', (bytes, from) => say('message', { from: from.port, hex: bytes.toString('hex') }))
peer.on('lost', bytes => say('lost', { length: bytes.length }))

const at = port => ({ address: '127.0.0.1', port })

obey({
  // With `times`, that often one after the other; with `atOnce`, that often at once. Says all results.
  async request ({ to, payload, times = 1, atOnce = 1, timeout }) {
    const results = []
    for (let i = 0; i < times; i++) {
      const asked = Array.from({ length: atOnce }, () => peer.request(at(to), 'any', payload, timeout))
      const settled = await Promise.allSettled(asked)
      results.push(...settled.map(({ value, reason }) => reason ? { error: reason.message } : { value }))
    }
    say('replies', { results })
  },
  punch ({ to }) {
    peer.punch(at(to))
  },
  send ({ to, hex }) {
    peer.send(Buffer.from(hex, 'hex'), at(to))
  },
  async handshake ({ to }) {
    await peer.handshake(at(to))
    say('handshake', { with: to })
  }
})
say('listening', { port: peer.port })
