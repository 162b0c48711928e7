"""Each format in which packages are declared: what is read of it, and that what is not read is named."""

from __future__ import annotations

import io
import json
import zipfile

import pytest

from tasks.checks.scan.archives import ARCHIVE, NESTING_LIMIT, OTHER_ARCHIVE
from tasks.checks.scan.lockfiles import FORMATS, UNREAD, _worth_a_look, format_of, read_declaration, select
from tasks.checks.scan.packages import PACKAGES_LIMIT, Declared

PIPFILE_LOCK = {
    "_meta": {"hash": {"sha256": "00"}},
    "default": {"requests": {"version": "==2.19.0"}, "here": {"path": ".", "editable": True}},
    "develop": {"pytest": {"version": "==8.0.0"}},
}
PDM = """
[[package]]
name = "httpx"
version = "0.27.0"
groups = ["default"]
[[package]]
name = "ruff"
version = "0.5.0"
groups = ["dev"]
[[package]]
name = "vcs"
version = "1.0"
git = "https://git.example/vcs"
"""
PYPROJECT = """
[project]
name = "raos"
dependencies = ["django==5.0.1", "jinja2[i18n]>=3 ; python_version > '3.8'", "x @ https://h.example/x.whl"]
[project.optional-dependencies]
dev = ["pytest"]
[tool.poetry.dependencies]
python = "^3.11"
anyio = "4.0.0"
own = { path = "../own" }
httpx = { version = "^0.27", extras = ["http2"] }
"""
CONDA = """
name: app
channels: [conda-forge]
dependencies:
  - python=3.11.4=hab00c5b_0_cpython
  - numpy==1.26.0
  - conda-forge::scipy=1.11
  - pip
  - pip:
      - flask==3.0.0
"""
CONDA_LOCK = """
version: 1
package:
- {name: numpy, version: 1.26.0, manager: conda, category: main}
- {name: flask, version: 3.0.0, manager: pip, category: main}
- {name: pytest, version: 8.0.0, manager: pip, category: dev}
"""
PIXI = """
version: 6
packages:
- conda: https://conda.example/linux-64/numpy-1.26.0-py311h64a7726_0.conda
  sha256: "00"
- pypi: https://files.example/flask-3.0.0-py3-none-any.whl
  name: flask
  version: 3.0.0
"""
YARN_1 = """\
# yarn lockfile v1


"@babel/core@^7.0.0", "@babel/core@^7.1.0":
  version "7.1.2"
  resolved "https://registry.example/@babel/core/-/core-7.1.2.tgz#00"
  dependencies:
    lodash "^4.17.10"

alias@npm:real@^2.0.0:
  version "2.0.1"

forked@github:kim/forked:
  version "1.0.0"
  resolved "https://codeload.example/kim/forked/tar.gz/00"

own@file:../own:
  version "1.0.0"
"""
BERRY = """\
__metadata:
  version: 8

"@babel/core@npm:^7.0.0":
  version: 7.1.2
  resolution: "@babel/core@npm:7.1.2"
  languageName: node
  linkType: hard

"lodash@patch:lodash@npm%3A4.17.20#./p.patch":
  version: 4.17.20
  resolution: "lodash@patch:lodash@npm%3A4.17.20#./p.patch::hash=0"
  linkType: hard

"raos@workspace:.":
  version: 0.0.0-use.local
  resolution: "raos@workspace:."
  linkType: soft
"""
PNPM_5 = "lockfileVersion: 5.4\npackages:\n  /@b/c/1.2.3_react@18.0.0:\n    dev: false\n  /d/4.5.6:\n    dev: true\n"
PNPM_6 = "lockfileVersion: '6.0'\npackages:\n  /@b/c@1.2.3(react@18.0.0):\n    dev: false\n"
PNPM_9 = "lockfileVersion: '9.0'\npackages:\n  '@b/c@1.2.3': {resolution: {integrity: x}}\n  d@1.10.0: {}\n"
BUN = """{
  "lockfileVersion": 1,
  "workspaces": {"": {"name": "raos", "dependencies": {"lodash": "^4.17.20",},},},
  "packages": {
    "lodash": ["lodash@4.17.20", "", {}, "sha512-,]"],
    "own": ["own@workspace:packages/own"],
    "git": ["git@github:kim/git#00", {}, "00"],
  }
}
"""
PACKAGE_JSON = {
    "dependencies": {"express": "^4.18.0", "lodash": "4.17.20", "own": "workspace:*", "alias": "npm:real@1.2.3"},
    "devDependencies": {"vitest": "^1.0.0"},
}
NUGET_LOCK = {
    "version": 1,
    "dependencies": {
        "net8.0": {
            "Newtonsoft.Json": {"type": "Direct", "requested": "[13.0.1, )", "resolved": "13.0.1"},
            "raos.core": {"type": "Project"},
        }
    },
}
CSPROJ = """\
<Project Sdk="Microsoft.NET.Sdk">
  <PropertyGroup><JsonVersion>13.0.1</JsonVersion></PropertyGroup>
  <ItemGroup>
    <PackageReference Include="Newtonsoft.Json" Version="$(JsonVersion)" />
    <PackageReference Include="Serilog"><Version>3.1.1</Version></PackageReference>
    <PackageReference Include="Floating" Version="1.*" />
    <PackageReference Include="Analyzer" Version="1.0.0" PrivateAssets="all" />
  </ItemGroup>
</Project>
"""
PACKAGES_CONFIG = """<?xml version="1.0" encoding="utf-8"?>
<packages><package id="jQuery" version="3.4.1" targetFramework="net48" /></packages>
"""
POM = """<?xml version="1.0"?>
<project xmlns="http://maven.apache.org/POM/4.0.0">
  <parent><groupId>com.example</groupId><artifactId>parent</artifactId><version>1.2</version></parent>
  <artifactId>app</artifactId>
  <properties><log4j.version>2.14.1</log4j.version></properties>
  <dependencyManagement><dependencies>
    <dependency><groupId>g</groupId><artifactId>managed</artifactId><version>4.0</version></dependency>
  </dependencies></dependencyManagement>
  <dependencies>
    <dependency><groupId>org.apache.logging.log4j</groupId><artifactId>log4j-core</artifactId>
      <version>${log4j.version}</version></dependency>
    <dependency><groupId>${project.groupId}</groupId><artifactId>sister</artifactId><version>${project.version}</version>
    </dependency>
    <dependency><groupId>g</groupId><artifactId>managed</artifactId></dependency>
    <dependency><groupId>g</groupId><artifactId>by-parent</artifactId></dependency>
    <dependency><groupId>junit</groupId><artifactId>junit</artifactId><version>4.12</version><scope>test</scope></dependency>
  </dependencies>
</project>
"""
GRADLE = """\
# This is a Gradle generated file for dependency locking.
com.google.guava:guava:31.1-jre=compileClasspath,runtimeClasspath
junit:junit:4.12=testCompileClasspath,testRuntimeClasspath
empty=annotationProcessor
"""
GO_MOD = """\
module example.com/raos
go 1.21
require github.com/gin-gonic/gin v1.9.0 // a comment
require (
	golang.org/x/net v0.7.0 // indirect
	github.com/old/name v1.0.0
	example.com/own v0.0.0
)
replace github.com/old/name => github.com/new/name v1.1.0
replace example.com/own => ../own
exclude golang.org/x/net v0.6.0
"""
GO_SUM = (
    "golang.org/x/net v0.7.0 h1:00=\ngolang.org/x/net v0.7.0/go.mod h1:00=\ngolang.org/x/sys v0.1.0/go.mod h1:00=\n"
)
GO_VENDOR = "# golang.org/x/net v0.7.0\n## explicit; go 1.17\ngolang.org/x/net/html\n# a.b/c v1.0.0 => d.e/f v1.2.0\n"
CARGO_LOCK = """
[[package]]
name = "raos"
version = "0.1.0"
[[package]]
name = "time"
version = "0.1.42"
source = "registry+https://github.com/rust-lang/crates.io-index"
[[package]]
name = "forked"
version = "1.0.0"
source = "git+https://git.example/forked#00"
"""
CARGO_TOML = (
    '[dependencies]\nserde = "1.0"\ntime = "=0.1.42"\nown = { path = "own" }\n[dev-dependencies]\ncriterion = "0.5"\n'
)
GEMFILE_LOCK = """\
GIT
  remote: https://git.example/forked.git
  specs:
    forked (1.0)

GEM
  remote: https://rubygems.org/
  specs:
    nokogiri (1.13.0-x86_64-linux)
      racc (~> 1.4)
    rack (2.2.3)

PATH
  remote: .
  specs:
    raos (1.0)

PLATFORMS
  x86_64-linux
"""
GEMFILE = """\
source 'https://rubygems.org'
gem 'rails', '~> 7.0'
gem "rack", "2.2.3"
group :test do
  gem 'rspec'
end
"""
GEMSPEC = "# -*- encoding: utf-8 -*-\n# stub: rack 2.2.3 ruby lib\n\nGem::Specification.new do |s|\nend\n"
COMPOSER = {
    "packages": [{"name": "Monolog/monolog", "version": "v2.9.1"}, {"name": "a/b", "version": "dev-main"}],
    "packages-dev": [{"name": "phpunit/phpunit", "version": "9.6.0"}],
}
DPKG = """\
Package: openssl
Status: install ok installed
Version: 3.0.11-1~deb12u2
Description: text
 more: text

Package: gone
Status: deinstall ok config-files
Version: 1.0
"""
APK = "C:Q1\nP:musl\nV:1.2.4-r2\nF:lib\nR:ld.so\n\nP:zlib\nV:1.3-r0\n"

READ = [
    ("Pipfile.lock", json.dumps(PIPFILE_LOCK), ["PyPI pytest 8.0.0 (dev)", "PyPI requests 2.19.0"]),
    (
        "Pipfile",
        '[packages]\nrequests = "==2.19.0"\nflask = "*"\n[dev-packages]\npytest = "*"\n',
        ["PyPI flask", "PyPI requests 2.19.0"],
    ),
    ("pdm.lock", PDM, ["PyPI httpx 0.27.0", "PyPI ruff 0.5.0 (dev)", "PyPI vcs"]),
    ("pyproject.toml", PYPROJECT, ["PyPI anyio 4.0.0", "PyPI django 5.0.1", "PyPI httpx", "PyPI jinja2", "PyPI x"]),
    (
        "setup.cfg",
        "[options]\ninstall_requires =\n  flask==3.0.0  # why\n  jinja2\n[flake8]\nx = %\n",
        ["PyPI flask 3.0.0", "PyPI jinja2"],
    ),
    ("constraints.txt", "flask<4\njinja2==3.1.2\n", ["PyPI jinja2 3.1.2"]),
    ("requirements.in", "flask\n", ["PyPI flask"]),
    (
        "environment.yml",
        CONDA,
        ["PyPI flask 3.0.0", "conda numpy 1.26.0", "conda pip", "conda python 3.11.4", "conda scipy"],
    ),
    ("conda-lock.yml", CONDA_LOCK, ["PyPI flask 3.0.0", "PyPI pytest 8.0.0 (dev)", "conda numpy 1.26.0"]),
    ("pixi.lock", PIXI, ["PyPI flask 3.0.0", "conda numpy 1.26.0"]),
    ("env/conda-meta/numpy-1.26.0-0.json", '{"name": "numpy", "version": "1.26.0"}', ["conda numpy 1.26.0"]),
    ("lib/a.egg-info", "Metadata-Version: 1.0\nName: a\nVersion: 1.0\n", ["PyPI a 1.0"]),
    ("yarn.lock", YARN_1, ["npm @babel/core 7.1.2", "npm forked", "npm real 2.0.1"]),
    ("web/yarn.lock", BERRY, ["npm @babel/core 7.1.2", "npm lodash 4.17.20"]),
    ("pnpm-lock.yaml", PNPM_5, ["npm @b/c 1.2.3", "npm d 4.5.6 (dev)"]),
    ("pnpm-lock.yaml", PNPM_6, ["npm @b/c 1.2.3"]),
    ("pnpm-lock.yaml", PNPM_9, ["npm @b/c 1.2.3", "npm d 1.10.0"]),
    ("bun.lock", BUN, ["npm git", "npm lodash 4.17.20"]),
    ("package.json", json.dumps(PACKAGE_JSON), ["npm express", "npm lodash 4.17.20", "npm real 1.2.3"]),
    (
        "node_modules/@b/c/package.json",
        '{"name": "@b/c", "version": "1.2.3", "dependencies": {"d": "^1"}}',
        ["npm @b/c 1.2.3"],
    ),
    ("node_modules/a/dist/package.json", '{"type": "module", "dependencies": {"d": "^1"}}', []),
    ("packages.lock.json", json.dumps(NUGET_LOCK), ["NuGet Newtonsoft.Json 13.0.1"]),
    (
        "src/RaOS.csproj",
        CSPROJ,
        ["NuGet Analyzer 1.0.0 (dev)", "NuGet Floating", "NuGet Newtonsoft.Json 13.0.1", "NuGet Serilog 3.1.1"],
    ),
    ("packages.config", PACKAGES_CONFIG, ["NuGet jQuery 3.4.1"]),
    ("obj/project.assets.json", '{"libraries": {"A/1.0.0": {"type": "package"}}}', ["NuGet A 1.0.0"]),
    (
        "pom.xml",
        POM,
        [
            "Maven com.example:sister 1.2",
            "Maven g:by-parent",
            "Maven g:managed 4.0",
            "Maven junit:junit 4.12 (dev)",
            "Maven org.apache.logging.log4j:log4j-core 2.14.1",
        ],
    ),
    ("gradle.lockfile", GRADLE, ["Maven com.google.guava:guava 31.1-jre", "Maven junit:junit 4.12 (dev)"]),
    (
        "go.mod",
        GO_MOD,
        ["Go github.com/gin-gonic/gin 1.9.0", "Go github.com/new/name 1.1.0", "Go golang.org/x/net 0.7.0"],
    ),
    ("go.sum", GO_SUM, ["Go golang.org/x/net 0.7.0"]),
    ("vendor/modules.txt", GO_VENDOR, ["Go d.e/f 1.2.0", "Go golang.org/x/net 0.7.0"]),
    ("Cargo.lock", CARGO_LOCK, ["crates.io forked", "crates.io time 0.1.42"]),
    ("Cargo.toml", CARGO_TOML, ["crates.io serde", "crates.io time 0.1.42"]),
    ("Gemfile.lock", GEMFILE_LOCK, ["RubyGems forked", "RubyGems nokogiri 1.13.0", "RubyGems rack 2.2.3"]),
    ("Gemfile", GEMFILE, ["RubyGems rack 2.2.3", "RubyGems rails"]),
    ("vendor/specifications/rack-2.2.3.gemspec", GEMSPEC, ["RubyGems rack 2.2.3"]),
    (
        "composer.lock",
        json.dumps(COMPOSER),
        ["Packagist a/b", "Packagist monolog/monolog 2.9.1", "Packagist phpunit/phpunit 9.6.0 (dev)"],
    ),
    (
        "vendor/composer/installed.json",
        json.dumps({"packages": COMPOSER["packages"][:1]}),
        ["Packagist monolog/monolog 2.9.1"],
    ),
    (
        "composer.json",
        '{"require": {"php": ">=8", "ext-json": "*", "a/b": "1.2.3", "c/d": "^2"}}',
        ["Packagist a/b 1.2.3", "Packagist c/d"],
    ),
    ("root/var/lib/dpkg/status", DPKG, ["Debian openssl 3.0.11-1~deb12u2"]),
    ("root/lib/apk/db/installed", APK, ["Alpine musl 1.2.4-r2", "Alpine zlib 1.3-r0"]),
]


def told(found: Declared) -> list[str]:
    """Each package with its version, or without one, and whether it is for development only."""
    exact = [
        f"{each.ecosystem} {each.name} {each.version}" + (" (dev)" if each in found.development else "")
        for each in found.packages
    ]
    return sorted([*exact, *(f"{system} {name}" for items in found.loose.values() for system, name in items)])


def declares(path: str, content: str | bytes) -> Declared:
    found = Declared()
    read_declaration(path, content.encode() if isinstance(content, str) else content, found)
    return found


@pytest.mark.parametrize(("path", "content", "packages"), READ, ids=[path for path, _, _ in READ])
def test_each_format_is_read(path: str, content: str, packages: list[str]) -> None:
    found = declares(path, content)
    assert (told(found), found.unreadable) == (packages, {})


def test_every_format_has_a_case_here_or_among_the_first_ones() -> None:
    first = ("requirements.txt", "uv.lock", "x.dist-info/METADATA", "RaOS.deps.json", "package-lock.json")
    cases = [*first, *(path for path, _, _ in READ), ".package-lock.json"]
    in_jars = ("META-INF/maven/g/a/pom.properties", "META-INF/maven/g/a/pom.xml")
    assert {id(format_of(path)) for path in (*cases, *in_jars)} >= {id(each) for each in FORMATS}


def test_the_quick_look_lets_every_format_pass() -> None:
    unread = [
        "bun.lockb",
        "build.gradle",
        "build.gradle.kts",
        "libs.versions.toml",
        "setup.py",
        "deno.lock",
        "build.sbt",
        "build.sc",
        "project.clj",
        "deps.edn",
        "ivy.xml",
        "paket.lock",
        "paket.dependencies",
        "mix.lock",
        "mix.exs",
        "rebar.lock",
        "pubspec.lock",
        "pubspec.yaml",
        "Package.resolved",
        "Package.swift",
        "Podfile",
        "Podfile.lock",
        "Cartfile.resolved",
        "conan.lock",
        "conanfile.txt",
        "conanfile.py",
        "vcpkg.json",
        "deno.json",
        "config/importmap.rb",
        "stack.yaml",
        "stack.yaml.lock",
        "cabal.project",
        "cabal.project.freeze",
        "renv.lock",
        "packrat.lock",
        "cpanfile",
        "cpanfile.snapshot",
        "shard.lock",
        "elm.json",
        "flake.lock",
        "MODULE.bazel",
        "MODULE.bazel.lock",
        "WORKSPACE",
        "WORKSPACE.bazel",
        "var/lib/rpm/Packages",
        "var/lib/rpm/Packages.db",
        "var/lib/rpm/rpmdb.sqlite",
    ]
    archives = ["a.jar", "a.war", "a.whl", "a.nupkg", "a.zip", "a.tar.gz", "a.tgz", "a.tar", "a.gem", "a.crate"]
    for path in [*(path for path, _, _ in READ), *unread, *archives]:
        if path != "node_modules/a/dist/package.json":
            assert _worth_a_look(path), path
    for path in unread:
        found = declares(path, b"")
        assert [(each.rule, each.unseen, each.path) for each in found.findings()] == [("unreadable", True, path)], path
    assert all(any(pattern.search(path) for path in unread) for pattern in UNREAD)
    assert all(ARCHIVE.search(path) or OTHER_ARCHIVE.search(path) for path in archives)


def chosen(*paths: str) -> tuple[list[str], Declared]:
    found = Declared()
    return [path for path, _ in select(sorted(paths), found)], found


def test_what_a_file_beside_it_says_is_no_gap() -> None:
    for paths in (
        ("app/build.gradle", "app/gradle.lockfile"),
        ("gradle/libs.versions.toml", "gradle.lockfile"),
        ("setup.py", "pyproject.toml"),
        ("pkg/setup.py", "pkg/__init__.py"),
        ("bun.lockb", "bun.lock"),
    ):
        assert chosen(*paths)[1].unreadable == {}, paths
    assert chosen("go.mod", "go.sum")[0] == ["go.mod"]
    assert chosen("a.jar!/META-INF/maven/g/a/pom.xml", "a.jar!/META-INF/maven/g/a/pom.properties")[0] == [
        "a.jar!/META-INF/maven/g/a/pom.properties"
    ]


def test_what_asks_for_versions_is_read_after_what_has_them() -> None:
    assert chosen("package.json", "yarn.lock", "a/pyproject.toml", "uv.lock")[0] == [
        "uv.lock", "yarn.lock", "a/pyproject.toml", "package.json"
    ]  # fmt: skip


def test_what_the_authors_of_a_package_locked_is_counted_and_not_read() -> None:
    paths, found = chosen(
        "node_modules/a/yarn.lock",
        "node_modules/@b/c/test/package-lock.json",
        "node_modules/a/package.json",
        "lib/python3.11/site-packages/p/requirements.txt",
        "vendor/modules.txt",
        "vendor/golang.org/x/net/go.mod",
        "php/vendor/composer/installed.json",
        "php/vendor/a/b/composer.json",
        "ruby/gems/rack-2.2.3/Gemfile.lock",
        "vendored/own/go.mod",
    )
    assert paths == [
        "node_modules/a/package.json", "php/vendor/composer/installed.json", "vendor/modules.txt", "vendored/own/go.mod"
    ]  # fmt: skip
    assert found.inner == 5
    (note,) = found.findings()
    assert (note.severity, note.rule, note.unseen, note.count) == ("low", "not-looked-up", True, 5)


def test_a_go_module_before_1_17_has_the_others_in_its_sum() -> None:
    old = declares("a/go.mod", GO_MOD.replace("go 1.21", "go 1.16"))
    assert list(old.included) == ["a/go.sum"]
    assert declares("a/go.mod", GO_MOD).included == {}


def test_what_it_brings_is_a_gap_only_where_no_lock_file_says_it() -> None:
    found = declares("pom.xml", POM)
    assert "pom.xml: what the packages" in [each.text for each in found.findings()][-1]
    found.complete.add("Maven")
    assert not any(each.rule == "not-looked-up" for each in found.findings())


def test_packages_without_advisories_are_said_not_to_be_looked_up() -> None:
    (found,) = declares("var/lib/dpkg/status", DPKG).findings()
    assert (found.severity, found.rule, found.unseen) == ("medium", "not-looked-up", True)
    assert found.text == "1 package of Debian (openssl): no advisories are read for them"


# Archives


def zipped(entries: dict[str, str | bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    whole = io.BytesIO()
    with zipfile.ZipFile(whole, "w", method) as archive:
        for name, content in entries.items():
            archive.writestr(name, content)
    return whole.getvalue()


def properties(artifact: str, version: str) -> dict[str, str | bytes]:
    text = f"groupId=org.example\nartifactId={artifact}\nversion={version}\n"
    return {f"META-INF/maven/org.example/{artifact}/pom.properties": text}


def test_a_jar_tells_its_coordinates_and_those_of_the_jars_in_it() -> None:
    inner = zipped(properties("inner", "1.0"))
    spring = zipped({"META-INF/MANIFEST.MF": "Implementation-Title: spring-core\n"})
    fat = properties("app", "2.0") | {
        "BOOT-INF/lib/inner-1.0.jar": inner,
        "BOOT-INF/lib/spring-core-5.3.17.jar": spring,
        "BOOT-INF/lib/own.jar": spring,
        "META-INF/maven/org.example/app/pom.xml": POM,
    }
    found = declares("lib/app.jar", zipped(fat))
    assert told(found) == [
        "Maven org.example:app 2.0",
        "Maven org.example:inner 1.0",
        "Maven org.springframework:spring-core 5.3.17",
    ]
    (note,) = found.findings()
    assert note.text == "lib/app.jar!/BOOT-INF/lib/own.jar: they do not say what they are, so they were not looked up"


def test_wheels_and_packages_of_nuget_tell_what_they_are() -> None:
    wheel = zipped({"flask/app.py": "", "flask-3.0.0.dist-info/METADATA": "Name: Flask\nVersion: 3.0.0\n"})
    assert told(declares("wheels/flask-3.0.0-py3-none-any.whl", wheel)) == ["PyPI flask 3.0.0"]
    nuspec = "<package><metadata><id>Serilog</id><version>3.1.1</version></metadata></package>"
    assert told(declares("serilog.3.1.1.nupkg", zipped({"Serilog.nuspec": nuspec}))) == ["NuGet Serilog 3.1.1"]
    lambda_zip = zipped({"app/requirements.txt": "flask==3.0.0\n"})
    assert told(declares("lambda.zip", lambda_zip)) == ["PyPI flask 3.0.0"]


def test_an_archive_that_cannot_be_looked_into_is_named() -> None:
    deep: bytes = zipped(properties("deep", "1.0"))
    for _ in range(NESTING_LIMIT):
        deep = zipped({"a.jar": deep})
    bomb = zipped({"x/package-lock.json": b" " * (9 * 1024 * 1024)})
    odd = zipped(properties("odd", "1"), zipfile.ZIP_BZIP2)
    for content, why in (
        (b"PK", "no zip"),
        (deep, "5 deep"),
        (bomb, "more than 8 MB unpacked"),
        (odd, "compressed in"),
    ):
        found = declares("a.jar", content)
        assert not found.packages
        (reason,) = found.unreadable.values()
        assert why in reason
    assert chosen("a.tar.gz", "b.gem")[1].closed == {"a.tar.gz", "b.gem"}


def test_what_doubles_at_each_level_is_refused() -> None:
    aliases = "a: &a [x]\nb: &b [*a, *a]\npackages: *b\n"
    entities = '<!DOCTYPE p [<!ENTITY a "aa"><!ENTITY b "&a;&a;">]><packages><package id="&b;" version="1"/></packages>'
    for path, content, why in (
        ("pnpm-lock.yaml", aliases, "alias"),
        ("packages.config", entities, "document type"),
        ("yarn.lock", "__metadata: 1\nb: " + "[" * 200, "levels"),
        ("pom.xml", "<project>" * 200, "levels"),
    ):
        assert why in declares(path, content).unreadable[path], path


def test_packages_are_bounded_and_the_rest_is_said() -> None:
    lines = "".join(f"p{number}==1\n" for number in range(PACKAGES_LIMIT + 1))
    found = declares("requirements.txt", lines)
    assert len(found.packages) == PACKAGES_LIMIT
    assert found.unreadable == {"requirements.txt": f"the bundle declares more than {PACKAGES_LIMIT} packages"}
