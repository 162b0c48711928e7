"""Names that are widely known, by ecosystem, and real ones that are one letter from such a name.

Those of PyPI and npm are their 300 most downloaded packages in November 2026 and some that people type; those of the
others are well known. The real names that are a letter from one of them, such as `attr` beside `attrs`, are among the
15,000 most downloaded packages of PyPI or the 30,000 of npm.
"""

from __future__ import annotations

_PYPI = """
boto3 packaging urllib3 certifi idna requests typing-extensions charset-normalizer setuptools botocore
cryptography aiobotocore python-dateutil six pyyaml pydantic pygments cffi click numpy pluggy pycparser
pydantic-core grpcio-status anyio s3transfer attrs protobuf h11 pytest annotated-types iniconfig fsspec httpx
httpcore typing-inspection pandas pip s3fs markupsafe platformdirs python-dotenv pathspec pyjwt jinja2 rich
jmespath markdown-it-py aiohttp filelock importlib-metadata yarl starlette multidict jsonschema zipp uvicorn
propcache wheel mdurl pyasn1 pytz google-auth googleapis-common-protos frozenlist litellm fastapi rpds-py tqdm
annotated-doc aiosignal referencing jsonschema-specifications trove-classifiers tzdata google-api-core
aiohappyeyeballs pillow virtualenv greenlet colorama pyasn1-modules typer grpcio opentelemetry-sdk tenacity
wrapt requests-oauthlib opentelemetry-api pyarrow awscli websockets opentelemetry-semantic-conventions
python-multipart scipy sniffio pydantic-settings sqlalchemy pyparsing shellingham tomli lxml beautifulsoup4
oauthlib soupsieve psutil regex cachetools textual sglang openai exceptiongroup hatchling opentelemetry-proto
more-itertools requests-toolbelt watchfiles rsa tomlkit proto-plus distro distlib jiter mcp websocket-client
mypy-extensions opentelemetry-exporter-otlp-proto-http langchain openpyxl et-xmlfile sse-starlette wcwidth
editables coverage docutils huggingface-hub grpcio-tools pydantic-ai-slim dnspython werkzeug networkx
google-cloud-storage redis gitpython google-genai msgpack psycopg2-binary pyopenssl ptyprocess decorator
python-discovery opentelemetry-exporter-otlp-proto-grpc opentelemetry-exporter-otlp-proto-common smmap pexpect
opentelemetry-instrumentation ruff docker pynacl sortedcontainers keyring docstring-parser uvloop httptools
fonttools multiprocess tabulate gitdb matplotlib isodate async-timeout httpx-sse prompt-toolkit jaraco-classes
azure-core secretstorage jeepney azure-identity scikit-learn itsdangerous flask google-cloud-core hf-xet bcrypt
jaraco-functools kiwisolver jaraco-context dill joblib pytest-cov pytest-asyncio contourpy alembic orjson
email-validator deprecated msal google-resumable-media google-crc32c chardet ruamel-yaml defusedxml
threadpoolctl tokenizers blinker snowflake-connector-python kubernetes tiktoken pytest-json-ctrf mako cycler
tzlocal toml mypy google-api-python-client sympy jsonpointer poetry-core nodeenv databricks-sql-connector
pydantic-graph xxhash pyproject-hooks uv zstandard ipython google-cloud-aiplatform uritemplate
opentelemetry-exporter-otlp prometheus-client google-auth-oauthlib asn1crypto google-auth-httplib2 rapidfuzz
google-cloud-bigquery build traitlets opentelemetry-instrumentation-requests opentelemetry-util-http
google-cloud-secret-manager paramiko httplib2 types-requests ydb identify transformers pre-commit cfgv jedi
aiofiles google-cloud-batch parso backoff executing weaviate-client h2 marshmallow hyperframe fastjsonschema
hpack matplotlib-inline sqlparse mpmath durationpy msal-extensions jsonpatch asttokens setuptools-scm
azure-storage-blob google-analytics-admin gunicorn anthropic babel cloudpickle authlib grpc-google-iam-v1
pure-eval stack-data black datasets sentry-sdk google-cloud-compute google-cloud-kms pytest-xdist langchain-core
asgiref tornado gcsfs xmltodict webencodings cython nest-asyncio execnet databricks-sdk dbt-core librt termcolor
python-json-logger pyee pandas-stubs django tensorflow torch seaborn selenium celery psycopg2
djangorestframework keras opencv-python pytorch-lightning wagtail streamlit plotly discord-py tweepy pymongo
twisted scrapy pyinstaller telethon web3 ansible poetry pipenv
"""
_NPM = """
semver ansi-styles debug minimatch strip-ansi chalk supports-color string-width ansi-regex ms lru-cache
brace-expansion tslib emoji-regex wrap-ansi type-fest commander glob color-name color-convert source-map
@types/node has-flag readable-stream picomatch ajv safe-buffer escape-string-regexp uuid yallist signal-exit
react-is is-fullwidth-code-point which p-limit json-schema-traverse find-up locate-path p-locate mime-db
eslint-visitor-keys telecom-mas-agent minipass glob-parent iconv-lite string_decoder js-yaml isarray mime-types
@babel/types @babel/code-frame globals path-key yargs-parser ws resolve get-stream argparse @babel/parser yargs
pretty-format ignore undici-types acorn isexe cross-spawn postcss balanced-match resolve-from
@rollup/rollup-linux-x64-musl fs-extra camelcase cliui @jridgewell/trace-mapping punycode
@babel/helper-validator-identifier @babel/generator is-stream entities agent-base estraverse strip-json-comments
shebang-regex shebang-command json5 @babel/traverse webidl-conversions path-exists path-to-regexp whatwg-url
https-proxy-agent onetime @babel/core form-data tr46 @babel/template execa typescript eslint-scope inherits
convert-source-map rimraf negotiator qs get-intrinsic @babel/helper-module-imports @babel/runtime statuses
universalify fast-deep-equal minimist picocolors @babel/helper-module-transforms chokidar @babel/compat-data
@babel/helpers has-symbols @jest/types esbuild @typescript-eslint/types @babel/helper-compilation-targets
function-bind caniuse-lite npm-run-path js-tokens graceful-fs @babel/helper-string-parser is-number bytes
@jridgewell/sourcemap-codec readdirp @types/estree mimic-fn slash @typescript-eslint/typescript-estree y18n
browserslist electron-to-chromium kind-of @typescript-eslint/visitor-keys yaml buffer cookie jsesc lodash braces
fill-range @babel/helper-plugin-utils hasown ini node-fetch escalade @jridgewell/gen-mapping human-signals
mkdirp gopd http-errors micromatch @typescript-eslint/scope-manager strip-bom es-object-atoms concat-map
make-dir is-glob es-define-property nanoid @smithy/util-utf8 es-errors to-regex-range
@babel/helper-validator-option call-bind-apply-helpers schema-utils @esbuild/linux-x64 update-browserslist-db
path-scurry yocto-queue node-releases ci-info dunder-proto math-intrinsics mime get-proto
@jridgewell/resolve-uri has-tostringtag uri-js magic-string object-inspect fast-glob dotenv pify zod
@aws-sdk/types @typescript-eslint/utils @smithy/util-buffer-from http-proxy-agent is-extglob strip-final-newline
parse-json espree once source-map-support content-disposition jest-util es-set-tostringtag is-wsl wrappy
@sinclair/typebox safer-buffer normalize-path side-channel is-core-module eslint cosmiconfig util-deprecate
axios jsonfile @img/sharp-linuxmusl-x64 ansi-escapes @img/sharp-libvips-linuxmusl-x64 encodeurl jest-worker
@smithy/is-array-buffer depd jackspeak scheduler doctrine @smithy/types postcss-selector-parser
lightningcss-linux-x64-musl flat-cache @types/yargs @unrs/resolver-binding-linux-x64-musl callsites react
delayed-stream @opentelemetry/core is-arrayish @typescript-eslint/parser asynckit require-from-string
combined-stream file-entry-cache source-map-js is-docker @jest/schemas object-assign eastasianwidth parse5 arg
@tailwindcss/oxide-linux-x64-musl estree-walker fastq send get-caller-file finalhandler esprima import-fresh
path-parse raw-body range-parser @types/json-schema optionator anymatch esutils type-check restore-cursor
call-bound diff csstype write-file-atomic @types/react setprototypeof path-type keyv
supports-preserve-symlinks-flag async foreground-child on-finished levn prelude-ls vary
fast-json-stable-stringify globby cli-cursor @typescript-eslint/eslint-plugin slice-ansi base64-js rxjs
react-dom @nodelib/fs.stat merge-stream eventemitter3 detect-libc serve-static lines-and-columns
require-directory @typescript-eslint/type-utils rollup reusify tough-cookie express angular vue next webpack
prettier moment jquery bootstrap mongoose mongodb sequelize passport socket.io nodemon discord.js electron
puppeteer cross-env body-parser bcrypt jsonwebtoken underscore request bluebird cheerio ethers web3 svelte
fastify tailwindcss
"""
_RUBYGEMS = """
rails railties activerecord activesupport activemodel actionpack actionview actionmailer activejob nokogiri
rack-test rack-protection sinatra puma unicorn sidekiq devise rspec rspec-core rspec-rails rubocop bundler
minitest capybara factory_bot faraday httparty json_pure jekyll sprockets thor sqlite3 mysql2 redis paperclip
carrierwave kaminari pundit cancancan simplecov webmock addressable concurrent-ruby i18n tzinfo mime-types
loofah rest-client aws-sdk
"""
_NUGET = """
Newtonsoft.Json Serilog AutoMapper MediatR Dapper NUnit xunit Moq FluentValidation FluentAssertions Polly
Swashbuckle.AspNetCore EntityFramework Microsoft.EntityFrameworkCore Microsoft.Extensions.Logging
System.Text.Json Npgsql StackExchange.Redis RestSharp NLog log4net Castle.Core Quartz Hangfire jQuery bootstrap
IdentityModel Azure.Core Azure.Identity Google.Protobuf Grpc.Net.Client RabbitMQ.Client MongoDB.Driver
HtmlAgilityPack CsvHelper Humanizer Autofac SharpZipLib
"""
_CRATES = """
serde serde_json serde_derive tokio tokio-util rand_core futures clap anyhow thiserror regex chrono reqwest
hyper tracing tracing-core quote proc-macro2 libc bitflags lazy_static once_cell itertools rayon crossbeam
parking_lot indexmap hashbrown base64 bytes http-body axum actix-web warp diesel sqlx rustls openssl uuid
num_cpus num-traits env_logger async-trait tempfile walkdir memchr rust_decimal
"""
_PACKAGIST = """
symfony/console symfony/http-foundation symfony/http-kernel symfony/yaml symfony/process laravel/framework
guzzlehttp/guzzle guzzlehttp/psr7 monolog/monolog phpunit/phpunit doctrine/orm doctrine/dbal twig/twig
ramsey/uuid nesbot/carbon vlucas/phpdotenv league/flysystem swiftmailer/swiftmailer predis/predis psr/log
nikic/php-parser phpmailer/phpmailer firebase/php-jwt aws/aws-sdk-php mockery/mockery fakerphp/faker
"""
_MAVEN = """
org.apache.logging.log4j:log4j-core org.apache.logging.log4j:log4j-api
com.fasterxml.jackson.core:jackson-databind com.fasterxml.jackson.core:jackson-core
org.springframework:spring-core org.springframework:spring-web org.springframework.boot:spring-boot
com.google.guava:guava com.google.code.gson:gson org.apache.commons:commons-lang3 commons-io:commons-io
org.slf4j:slf4j-api ch.qos.logback:logback-classic org.hibernate.orm:hibernate-core org.postgresql:postgresql
com.mysql:mysql-connector-j junit:junit org.projectlombok:lombok io.netty:netty-all
org.apache.httpcomponents:httpclient com.squareup.okhttp3:okhttp org.yaml:snakeyaml com.h2database:h2
"""
_GO = """
github.com/gin-gonic/gin github.com/gorilla/mux github.com/spf13/cobra github.com/spf13/viper
github.com/sirupsen/logrus github.com/stretchr/testify github.com/pkg/errors github.com/google/uuid
github.com/labstack/echo/v4 github.com/go-chi/chi/v5 github.com/gofiber/fiber/v2
github.com/prometheus/client_golang github.com/golang-jwt/jwt/v5 github.com/redis/go-redis/v9 github.com/lib/pq
github.com/jackc/pgx/v5 github.com/boltdb/bolt go.uber.org/zap golang.org/x/net golang.org/x/crypto
golang.org/x/sys golang.org/x/text google.golang.org/grpc google.golang.org/protobuf gorm.io/gorm
gopkg.in/yaml.v3
"""
_REAL_PYPI = """
aiofile attr beautifulsoup boto bpython cattrs cchardet crick ctransformers cwcwidth dataset dbt-score djongo
fastai gitdb2 google-oauth grequests gsutil httpr hyper identity ipytest isolate jiwer jsonpath myjwt
nest-asyncio2 openapi parse parsl parsy psycopg psycopg-binary pyaml pyasn pytest-csv retworkx scapy scipp
scrypt simpy slack smmap2 spython tombi torchx unicorn uri-template vbuild vyper websocket willow wsgiref xoto3
"""
_REAL_NPM = """
@types/espree args args-parser as-number brace buffers callsite camel-case clui cookies crypt dargs
eventemitter2 findup fs.extra gaxios global httperrors inherit is-blob isstream it-glob jslint json json3 jsona
jsonc jsonp mkdirp2 mquery object.assign one-time parse parsejson path-parser preact punycode2 react-if
react-vis scrypt semiver set-proto synckit tslint tsutils ttypescript urijs vargs vasync
"""

POPULAR: dict[str, frozenset[str]] = {
    "PyPI": frozenset(_PYPI.split()),
    "npm": frozenset(_NPM.split()),
    "RubyGems": frozenset(_RUBYGEMS.split()),
    "NuGet": frozenset(_NUGET.casefold().split()),
    "crates.io": frozenset(_CRATES.split()),
    "Packagist": frozenset(_PACKAGIST.split()),
    "Maven": frozenset(_MAVEN.split()),
    "Go": frozenset(_GO.split()),
}
REAL: dict[str, frozenset[str]] = {"PyPI": frozenset(_REAL_PYPI.split()), "npm": frozenset(_REAL_NPM.split())}
