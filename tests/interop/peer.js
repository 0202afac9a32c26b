'use strict'
// A peer as grenache-nodejs-utp makes them, on libutp: one UDP socket for serving, requesting and punching, a packet
// read as one JSON text, a message written by one write.

const crypto = require('crypto')
const { EventEmitter } = require('events')
const utp = require('utp-native')

const PUNCH = Buffer.from('ÿ')

const HANDSHAKE = { send: 5, receive: 2, every: 50 } // every: ms

// Splits a stream into JSON texts, arrays and objects, wherever its packets begin and end.
class Splitter {
  constructor () {
    this.kept = []
    this.depth = 0
    this.quoted = this.escaped = false
  }

  push (bytes) {
    const texts = []
    let begin = 0
    for (let i = 0; i < bytes.length; i++) {
      const c = bytes[i]
      if (this.escaped) this.escaped = false
      else if (this.quoted && c === 0x5c) this.escaped = true
      else if (c === 0x22) this.quoted = !this.quoted
      else if (!this.quoted && (c === 0x5b || c === 0x7b)) this.depth++
      else if (!this.quoted && (c === 0x5d || c === 0x7d) && --this.depth === 0) {
        texts.push(Buffer.concat([...this.kept, bytes.slice(begin, i + 1)]))
        this.kept = []
        begin = i + 1
      }
    }
    this.kept.push(bytes.slice(begin))
    return texts
  }
}

// Events: punched (from), message (bytes, from), lost (bytes): a packet that is no JSON text.
class Peer extends EventEmitter {
  // With `stream` it reads a stream of texts, which the original does not. `port`: that of its socket, 0 for any.
  constructor ({ stream = false, port = 0 } = {}) {
    super()
    this.stream = stream
    this.waiting = new Map()
    this.connections = new Map()
    this.socket = utp()
    this.socket.on('message', (bytes, from) => {
      if (bytes.equals(PUNCH)) this.emit('punched', from)
      else this.emit('message', bytes, from)
    })
    this.socket.listen(port, '127.0.0.1')
    this.port = this.socket.address().port
  }

  // `handler(payload, from, reply)`, with `reply(err, result)`.
  serve (handler) {
    this.socket.on('connection', connection => {
      const from = { address: connection.remoteAddress, port: connection.remotePort }
      this._read(connection, ([rid, , payload]) => {
        handler(payload, from, (err, result) => this._write(connection, [rid, err ? err.message : null, result]))
      })
      connection.on('error', () => {})
    })
  }

  request (to, key, payload, timeout = 10000) {
    const rid = crypto.randomUUID()
    return new Promise((resolve, reject) => {
      const timer = setTimeout(() => this._settle(rid, new Error('ERR_TIMEOUT')), timeout)
      this.waiting.set(rid, { resolve, reject, timer })
      this._connected(to).then(
        connection => this._write(connection, [rid, key, payload]),
        err => this._settle(rid, err)
      )
    })
  }

  punch ({ address, port }) {
    this.send(PUNCH, { address, port })
  }

  send (bytes, { address, port }) {
    this.socket.send(bytes, 0, bytes.length, port, address)
  }

  handshake (to) {
    let [sent, received] = [0, 0]
    return new Promise((resolve, reject) => {
      const tick = setInterval(() => {
        if (sent < HANDSHAKE.send) {
          this.punch(to)
          sent++
        }
        if (sent === HANDSHAKE.send && received >= HANDSHAKE.receive) end(resolve)
      }, HANDSHAKE.every)
      const timer = setTimeout(() => end(reject, new Error('ERR_TIMEOUT')), 30000)
      const heard = from => {
        if (from.port === to.port) received++
      }
      const end = (how, what) => {
        clearInterval(tick)
        clearTimeout(timer)
        this.off('punched', heard)
        how(what)
      }
      this.on('punched', heard)
    })
  }

  // One connection to each destination, however many requests are in flight.
  _connected ({ address, port }) {
    const key = `${address}:${port}`
    const known = this.connections.get(key)
    if (known) return known
    const connecting = new Promise((resolve, reject) => {
      const connection = this.socket.connect(+port, address)
      connection.once('connect', () => resolve(connection))
      connection.on('error', reject)
      connection.on('close', () => this.connections.delete(key))
      this._read(connection, ([rid, err, result]) => this._settle(rid, err ? new Error(err) : null, result))
    })
    this.connections.set(key, connecting)
    return connecting
  }

  _read (connection, ontext) {
    const splitter = new Splitter()
    connection.on('data', bytes => {
      for (const text of this.stream ? splitter.push(bytes) : [bytes]) {
        let message
        try {
          message = JSON.parse(text)
        } catch (err) {
          this.emit('lost', text)
        }
        if (message) ontext(message)
      }
    })
  }

  _write (connection, message) {
    connection.write(Buffer.from(JSON.stringify(message)))
  }

  _settle (rid, err, result) {
    const request = this.waiting.get(rid)
    if (!request) return
    this.waiting.delete(rid)
    clearTimeout(request.timer)
    if (err) request.reject(err)
    else request.resolve(result)
  }
}

module.exports = Peer
