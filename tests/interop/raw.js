'use strict'
// A libutp socket whose connections carry bytes as it is told. Arguments: the size of the socket's buffers, as the
// system has it where 0 (the original leaves it so), and a port.

const crypto = require('crypto')
const utp = require('utp-native')
const { obey, say } = require('./told')

const WRITE = 65536 // bytes at once

const [buffers, port] = process.argv.slice(2)

const sha256 = bytes => crypto.createHash('sha256').update(bytes)

// Bytes that look random: AES in counter mode over zeros.
function pattern (length) {
  return crypto.createCipheriv('aes-128-ctr', Buffer.alloc(16, 7), Buffer.alloc(16)).update(Buffer.alloc(length))
}

// Writes `send` bytes and finishes, at once or, with `after`, when the peer has finished.
function carry (connection, { send = 0, after = false }) {
  const bytes = pattern(send)
  const write = () => {
    for (let at = 0; at < send; at += WRITE) connection.write(bytes.slice(at, at + WRITE))
    connection.end()
  }
  const received = crypto.createHash('sha256')
  let length = 0
  connection.on('data', data => {
    received.update(data)
    length += data.length
  })
  connection.on('end', () => {
    say('received', { length, sha256: received.digest('hex') })
    if (after) write()
  })
  say('sends', { sha256: sha256(bytes).digest('hex') })
  if (!after) write()
}

// Says what comes, and gives it back where it `echoes`.
function talk (connection, echoes) {
  connection.on('data', data => {
    say('data', { text: data.toString() })
    if (echoes) connection.write(data)
  })
}

function tellEnd (connection) {
  connection.on('error', err => say('failed', { error: err.message }))
  connection.on('close', () => say('closed'))
}

let accept
let talking

const socket = utp()
socket.on('connection', connection => {
  tellEnd(connection)
  accept(connection)
})
socket.listen(+port || 0, '127.0.0.1')
if (+buffers) {
  socket.setRecvBufferSize(+buffers)
  socket.setSendBufferSize(+buffers)
}

obey({
  carry (options) {
    accept = connection => carry(connection, options)
    say('ready')
  },
  echo () {
    accept = connection => talk(connection, true)
    say('ready')
  },
  connect ({ to, ...options }) {
    const connection = socket.connect(to, '127.0.0.1')
    tellEnd(connection)
    connection.once('connect', () => carry(connection, options))
  },
  talk ({ to }) {
    talking = socket.connect(to, '127.0.0.1')
    tellEnd(talking)
    talk(talking, false)
    talking.once('connect', () => say('ready'))
  },
  write ({ text }) {
    talking.write(text)
  }
})
say('listening', { port: socket.address().port })
