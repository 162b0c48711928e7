'use strict';

const express = require('express');
const { version } = require('./package.json');

const words = { en: 'Hello', de: 'Guten Tag', fr: 'Bonjour' };
const app = express();
app.disable('x-powered-by');
app.use((request, response, next) => {
  response.set({
    'Content-Security-Policy': "default-src 'none'; frame-ancestors 'none'",
    'Referrer-Policy': 'no-referrer',
    'X-Content-Type-Options': 'nosniff',
  });
  next();
});

app.get('/health', (request, response) => {
  response.json({ status: 'ok', version, bundle: process.env.ASHAT_BUNDLE });
});

app.get('/greetings', (request, response) => {
  response.json({ languages: Object.keys(words) });
});

app.get('/greetings/:language/:name', (request, response) => {
  const word = Object.hasOwn(words, request.params.language) && words[request.params.language];
  if (!word) {
    response.status(404).json({ error: 'no such language' });
    return;
  }
  response.json({ greeting: `${word}, ${request.params.name}!` });
});

app.use((request, response) => {
  response.status(404).json({ error: 'not found' });
});

app.use((error, request, response, next) => {
  console.error(error);
  response.status(500).json({ error: 'it went wrong' });
});

const server = app.listen(Number(process.env.RAOS_PORT), '127.0.0.1');
process.on('SIGTERM', () => server.close(() => process.exit(0)));
