'use strict'
// The original's example of a broker and its worker and client, which find each other through Grapes. Arguments: a
// role, a Grape, the broker's name, the service's name.

const crypto = require('crypto')
const Link = require('grenache-nodejs-link')
const Peer = require('./peer')
const { obey, say } = require('./told')

const ENTRIES = 500
const LIFETIME = 15000 // ms
const EVERY = 2000 // ms

const [role, grape, broker, service] = process.argv.slice(2)

const link = new Link({ grape })
link.start()
const peer = new Peer()

function announce (name) {
  link.announce(name, peer.port, {}, () => {})
}

function lookup (name) {
  return new Promise((resolve, reject) => {
    link.lookup(name, {}, (err, found) => {
      if (err) return reject(err)
      const [address, port] = found[Math.floor(Math.random() * found.length)].split(':')
      resolve({ address, port: +port })
    })
  })
}

// Registers, and gives those of the other role.
async function register (server) {
  const to = await lookup(broker)
  const answer = await peer.request(to, broker, { service, server })
  return Object.values(answer[service]).filter(entry => entry.server !== server)
}

function serveRegistrations () {
  const entries = new Map()
  peer.serve((payload, from, reply) => {
    const entry = { ...payload, ...from }
    const key = crypto.createHash('md5').update(JSON.stringify(entry)).digest('hex')
    const now = Date.now()
    entries.delete(key)
    entries.set(key, { entry, now })
    for (const [key, { now: since }] of entries) {
      if (entries.size > ENTRIES || now - since > LIFETIME) entries.delete(key)
    }
    // Whatever is asked for: it knows one service only.
    const answer = [...entries].map(([key, { entry }]) => [key, entry])
    reply(null, { [service]: Object.fromEntries(answer) })
  })
  announce(broker)
  setInterval(() => announce(broker), EVERY / 2)
}

function work () {
  peer.serve((payload, from, reply) => reply(null, { worker: 'theirs', payload }))
  const round = async () => {
    announce(service)
    try {
      const clients = await register(true)
      // Of those that wait only one is punched.
      if (clients.length) peer.punch(clients.pop())
    } catch (err) {
      say('failed', { error: err.message })
    }
  }
  round()
  setInterval(round, EVERY)
}

// Registers once, waits to be punched, and asks whoever punched.
async function ask () {
  peer.once('punched', async worker => {
    try {
      say('reply', { from: worker.port, value: await peer.request(worker, service, 'strategy') })
    } catch (err) {
      say('failed', { error: err.message })
    }
  })
  await register(false)
  say('registered')
}

obey({ ask })
if (role === 'broker') serveRegistrations()
if (role === 'worker') work()
say('listening', { port: peer.port })
