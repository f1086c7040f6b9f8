// The certified authorization server `oidc-provider`, and what bearward needs of one that it does not bring: grants of
// its extension point, an API that takes its tokens, clocks that are off, and a record of all token requests.
//
// node server.mjs SETUP, where SETUP is a JSON file:
//   modules, issuer, clients    the folder node_modules; the provider's own configuration
//   lifetimes                   seconds of the tokens of a client, by its id
//   skews                       further listeners, by name, and how many seconds their clock is ahead
//   faults                      what the first token requests of a credential meet, by its name:
//                               `unavailable` (503), `lost` (done, and never answered), `slow`, or null
//   users, limit                passwords by name; how many sessions each may have
//   issuers                     whose JWTs are taken: JWK sets by `iss`
//   tls                         files of the listener `tls`: ca, cert, key
// One JSON line on standard output names the port of each listener. The process ends with its standard input.
//
//   POST /token, /token/revocation, /logout    the identity provider; `X-Credential` names who asks
//   /api/...                                   the API: who the token's holder is, or 401
//   GET /record                                everything that was seen
//   POST /clock                                from now on `?listener` is ahead by `?seconds`

import { AsyncLocalStorage } from 'node:async_hooks';
import { X509Certificate, generateKeyPairSync } from 'node:crypto';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import http from 'node:http';
import https from 'node:https';
import { createRequire } from 'node:module';
import { text } from 'node:stream/consumers';
import { setTimeout } from 'node:timers/promises';
import { pathToFileURL } from 'node:url';

const setup = JSON.parse(readFileSync(process.argv[2], 'utf8'));
console.info = console.warn = console.error; // standard output is ours

// A server whose clock is off: seconds that are added to the time of everything done for one of its requests.
const skew = new AsyncLocalStorage();
const clock = Date.now.bind(Date);
Date.now = () => clock() + 1000 * (skew.getStore() ?? 0);
const seconds = () => Math.floor(Date.now() / 1000);

const installed = createRequire(`${setup.modules}/`);
const load = (name) => import(pathToFileURL(installed.resolve(name)));
const { default: Provider, errors } = await load('oidc-provider');
const { createLocalJWKSet, jwtVerify } = await load('jose');

const JWT_BEARER = 'urn:ietf:params:oauth:grant-type:jwt-bearer';
const TOKEN_EXCHANGE = 'urn:ietf:params:oauth:grant-type:token-exchange';
const ACCESS_TOKEN = 'urn:ietf:params:oauth:token-type:access_token';
const JWT = 'urn:ietf:params:oauth:token-type:jwt';

const record = { requests: [], sessions: [], revoked: [], tokens: [] };
const signing = generateKeyPairSync('ec', { namedCurve: 'P-256' }).privateKey.export({ format: 'jwk' });
const lifetime = (_ctx, _token, client) => setup.lifetimes[client.clientId] ?? 300;

const provider = new Provider(setup.issuer, {
  clients: setup.clients,
  jwks: { keys: [signing] },
  clientDefaults: { redirect_uris: [], response_types: [], id_token_signed_response_alg: 'ES256' },
  clientAuthMethods: [
    'client_secret_basic', 'client_secret_post', 'client_secret_jwt', 'private_key_jwt', 'none',
    'tls_client_auth', 'self_signed_tls_client_auth',
  ],
  enabledJWA: { clientAuthSigningAlgValues: ['HS256', 'HS384', 'HS512', 'RS256', 'PS256', 'ES256', 'EdDSA'] },
  clockTolerance: 0,
  scopes: ['offline_access', 'reports'],
  ttl: { AccessToken: lifetime, ClientCredentials: lifetime, RefreshToken: 600, Grant: 3600 },
  rotateRefreshToken: true,
  findAccount: (_ctx, id) => ({ accountId: id, claims: async () => ({ sub: id }) }),
  assertJwtClientAuthClaimsAndHeader,
  features: {
    clientCredentials: { enabled: true },
    revocation: { enabled: true },
    devInteractions: { enabled: false },
    fapi: { enabled: true, profile: (_ctx, client) => (client?.clientId.startsWith('fapi') ? '2.0' : undefined) },
    mTLS: {
      enabled: true,
      certificateBoundAccessTokens: true,
      tlsClientAuth: true,
      selfSignedTlsClientAuth: true,
      getCertificate: certificate,
      certificateAuthorized: (ctx) => ctx.socket.authorized,
      certificateSubjectMatches: (ctx, property, expected) => property === 'tls_client_auth_san_email'
        && certificate(ctx).subjectAltName.split(', ').includes(`email:${expected}`),
    },
  },
});

// Stricter than the provider is by itself: FAPI 2.0 §5.3.2.1, RFC 7519 §4.1.6 taken at its word, RFC 7515 §4.1.8.
function assertJwtClientAuthClaimsAndHeader(ctx, claims, header, client) {
  const refuse = (why) => { throw new errors.InvalidClientAuth(why); };
  if (typeof claims.aud !== 'string') refuse('the audience is not one string');
  if (ctx.oidc.isFapi('2.0') && claims.aud !== ctx.oidc.issuer) refuse('the audience is not the issuer');
  if (claims.iat > seconds()) refuse('issued in the future');
  if (claims.exp > seconds() + 300) refuse('expires too late');
  const [certified] = client.jwks?.keys.flatMap((key) => key.x5c ?? []) ?? [];
  if (certified && header['x5t#S256'] !== thumbprint(certificateOf(certified))) refuse('another certificate');
}

function certificateOf(base64) {
  return new X509Certificate(Buffer.from(base64, 'base64'));
}

function thumbprint({ fingerprint256 }) {
  return Buffer.from(fingerprint256.replaceAll(':', ''), 'hex').toString('base64url');
}

function certificate(ctx) {
  const raw = ctx.socket.getPeerCertificate?.().raw;
  return raw && new X509Certificate(raw);
}

// ── grants ─────────────────────────────────────────────────────────────────────────────────────────────────────────

const liveSessions = (user) => record.sessions.filter((session) => session.live && session.user === user);

async function password(ctx) {
  const { client, params: { username, password: given } } = ctx.oidc;
  if (!given || setup.users[username] !== given) throw new errors.InvalidGrant('wrong user or password');
  if (liveSessions(username).length >= setup.limit) { // as Keycloak says it
    ctx.status = 403;
    ctx.body = { error: 'sessionLimitExceeded' };
    return;
  }
  const grant = new provider.Grant({ accountId: username, clientId: client.clientId });
  grant.addOIDCScope('offline_access');
  const owned = { accountId: username, client, grantId: await grant.save(), scope: 'offline_access', gty: 'password' };
  record.sessions.push({ id: owned.grantId, user: username, live: true, refresh_tokens: [] });
  const access = new provider.AccessToken(owned);
  const refresh = new provider.RefreshToken({ ...owned, rotations: 0 });
  ctx.body = {
    access_token: await access.save(), expires_in: access.expiration, token_type: 'bearer',
    refresh_token: await refresh.save(), refresh_expires_in: refresh.expiration, session_state: owned.grantId,
  };
}

// The claims of a JWT that one of our issuers has signed, for us, lately and for one use. Throws InvalidGrant.
async function verified(ctx, jwt, { once: single = true } = {}) {
  try {
    const { payload } = await jwtVerify(jwt, ({ kid, alg }, token) => keyOf(token, kid, alg), {
      audience: [...ctx.oidc?.clientJwtAuthExpectedAudience() ?? [setup.issuer]],
      currentDate: new Date(Date.now()),
      maxTokenAge: '5m',
      requiredClaims: ['iss', 'sub', 'aud', 'exp', 'iat', 'jti'],
    });
    if (single && !await provider.ReplayDetection.unique(payload.iss, payload.jti, payload.exp)) {
      throw new Error('used before');
    }
    return payload;
  } catch (cause) {
    throw new errors.InvalidGrant({ detail: cause.message });
  }
}

function keyOf(token, kid, alg) {
  const { iss } = JSON.parse(Buffer.from(token.payload, 'base64url'));
  if (!setup.issuers[iss]) throw new Error('an unknown issuer');
  return createLocalJWKSet(setup.issuers[iss])({ kid, alg }, token);
}

async function jwtBearer(ctx) {
  const { client, params: { assertion } } = ctx.oidc;
  const { sub, scope } = await verified(ctx, assertion ?? '');
  ctx.body = await accessToken({ client, accountId: sub, scope, gty: 'jwt-bearer' });
}

async function tokenExchange(ctx) {
  const { client, params: { subject_token: subject, subject_token_type: type, scope } } = ctx.oidc;
  let accountId;
  if (type === ACCESS_TOKEN) {
    const found = await findToken(subject ?? '');
    if (!found) throw new errors.InvalidRequest('the subject token is not valid'); // RFC 8693 §2.2.2
    accountId = found.accountId ?? found.clientId;
  } else if (type === JWT) {
    accountId = (await verified(ctx, subject ?? '')).sub;
  } else {
    throw new errors.InvalidRequest('subject_token_type is not supported');
  }
  const issued = await accessToken({ client, accountId, scope, gty: 'token-exchange' });
  ctx.body = { ...issued, issued_token_type: ACCESS_TOKEN };
}

async function accessToken(fields) {
  const token = new provider.AccessToken(fields);
  return { access_token: await token.save(), expires_in: token.expiration, token_type: 'Bearer' };
}

provider.registerGrantType('password', password, ['username', 'password', 'scope']);
provider.registerGrantType(JWT_BEARER, jwtBearer, ['assertion', 'scope']);
provider.registerGrantType(
  TOKEN_EXCHANGE, tokenExchange, ['subject_token', 'subject_token_type', 'audience', 'scope'], ['audience'],
);

// ── what else it answers ───────────────────────────────────────────────────────────────────────────────────────────

async function recorded(ctx, next) {
  const credential = ctx.get('x-credential');
  const fault = setup.faults[credential]?.shift();
  const seen = { credential, at: clock() / 1000, authorization: ctx.get('authorization') || null };
  record.requests.push(seen);
  if (fault === 'unavailable') {
    ctx.status = 503;
    seen.form = Object.fromEntries(new URLSearchParams(await text(ctx.req)));
  } else {
    if (fault === 'slow') await setTimeout(2500);
    await next();
    seen.form = { ...ctx.oidc.body };
  }
  seen.status = ctx.status;
  seen.why = ctx.state.why ?? null;
  if (fault === 'lost') { // done, and nobody will know
    ctx.respond = false;
    ctx.req.socket.destroy();
  }
}

async function logout(ctx) {
  const { client_id: clientId, refresh_token: given } = Object.fromEntries(new URLSearchParams(await text(ctx.req)));
  const found = given && await provider.RefreshToken.find(given, { ignoreExpiration: true });
  if (!found || found.clientId !== clientId) {
    ctx.status = 400;
    ctx.body = { error: 'invalid_grant' };
    return;
  }
  await Promise.all([provider.AccessToken, provider.RefreshToken].map((kind) => kind.revokeByGrantId(found.grantId)));
  end(found.grantId);
  ctx.status = 204;
}

function end(id) {
  record.sessions.find((session) => session.id === id).live = false;
}

async function api(ctx) {
  const [scheme, token] = ctx.get('authorization').split(' ');
  const holder = scheme === 'Bearer' && await (token.includes('.') ? jwtHolder(ctx, token) : tokenHolder(ctx, token));
  if (holder) {
    ctx.body = holder;
    return;
  }
  ctx.status = 401;
  ctx.set('WWW-Authenticate', 'Bearer error="invalid_token"');
}

async function findToken(token) {
  return await provider.AccessToken.find(token) ?? await provider.ClientCredentials.find(token);
}

async function tokenHolder(ctx, token) {
  const found = await findToken(token);
  const bound = found?.['x5t#S256'];
  if (!found || (bound && bound !== thumbprint(certificate(ctx) ?? { fingerprint256: '' }))) return undefined;
  const { clientId: client, accountId: account, scope, gty } = found;
  return { client, account, scope, gty, bound: !!bound };
}

function jwtHolder(ctx, token) {
  return verified(ctx, token, { once: false }).then((account) => ({ account: account.sub }), () => undefined);
}

function setClock(ctx) {
  setup.skews[ctx.query.listener] = Number(ctx.query.seconds);
  ctx.status = 204;
}

const endpoints = {
  '/token': recorded, '/logout': logout, '/clock': setClock, '/record': (ctx) => { ctx.body = record; },
};
provider.use((ctx, next) => {
  ctx.set('Date', new Date(Date.now()).toUTCString());
  return (ctx.path.startsWith('/api/') ? api : endpoints[ctx.path] ?? ((_ctx, go) => go()))(ctx, next);
});

provider.on('refresh_token.saved', ({ grantId, jti }) => {
  const { refresh_tokens: tokens } = record.sessions.find((session) => session.id === grantId);
  if (!tokens.includes(jti)) tokens.push(jti);
});
for (const kind of ['access_token', 'client_credentials']) {
  provider.on(`${kind}.saved`, ({ clientId, jti }) => record.tokens.push({ client: clientId, token: jti }));
}
provider.on('grant.revoked', (_ctx, id) => { record.revoked.push(id); end(id); });
provider.on('grant.error', (ctx, error) => { ctx.state.why = error.error_detail ?? error.error_description; });
provider.on('server_error', (_ctx, error) => console.error(error));

// ── listeners ──────────────────────────────────────────────────────────────────────────────────────────────────────

async function listen(name) {
  const handle = provider.callback();
  const now = (request, response) => skew.run(setup.skews[name] ?? 0, handle, request, response);
  const asks = { ...files, requestCert: true, rejectUnauthorized: false };
  const server = name === 'tls' ? https.createServer(asks, now) : http.createServer(now);
  await once(server.listen(0, '127.0.0.1'), 'listening');
  return server.address().port;
}

const files = Object.fromEntries(Object.entries(setup.tls).map(([name, file]) => [name, readFileSync(file)]));
const ports = {};
for (const name of ['plain', 'tls', ...Object.keys(setup.skews)]) ports[name] = await listen(name);
process.stdout.write(`${JSON.stringify(ports)}\n`);
process.stdin.resume().on('end', () => process.exit());
