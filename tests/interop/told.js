'use strict'
// A script's side of the pipe: it does what each line of JSON that it is given says, says what happens as lines of
// JSON, and ends with whoever started it.

const readline = require('readline')

exports.say = (event, more) => {
  console.log(JSON.stringify({ event, ...more }))
}

exports.obey = commands => {
  const lines = readline.createInterface({ input: process.stdin })
  lines.on('line', line => {
    const { do: name, ...options } = JSON.parse(line)
    commands[name](options)
  })
  lines.on('close', () => process.exit())
}
