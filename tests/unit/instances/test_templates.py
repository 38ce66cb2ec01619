"""Templates of images: pongo2's language, and no way out of it."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lxpy.errors import Failed
from lxpy.instances import pongo, templates
from lxpy.instances.pongo import Renderer
from lxpy.runtime.spec import FileWrite
from tests.unit.instances.test_expand import make

INSTANCE = make(
    expanded_config={"user.a": "1\r\n\n", "security.privileged": "true", "user.big": "x" * 50_000},
    expanded_devices={"eth0": {"type": "nic"}, "a": {"type": "disk"}},
)
VALUES = templates.values(INSTANCE, "create", "/etc/x", {"default": "DD", "items": "I"})


@dataclass(frozen=True)
class Template:
    path: str
    template: str
    when: tuple[str, ...]
    create_only: bool = False
    properties: dict[str, str] = field(default_factory=dict)


def render(source: str) -> str:
    return Renderer(VALUES).render("x.tpl", source)


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("{{ container.name }}\n", "c1\n"),
        ("{{ instance.type }} {{ container.architecture }}", "container x86_64"),
        ("{{ container.privileged }},{{ instance.ephemeral }}", "true,false"),
        ("{{ trigger }} {{ path }} {{ properties.default }}", "create /etc/x DD"),
        ('{{ config_get("user.a") }}', "1"),
        ('{{ config_get("user.b", properties.default) }}', "DD"),
        ('{{ config_get("user.b", "") }}', ""),
        ('{% if config_get("user.b", "") == "" %}a{% else %}b{% endif %}', "a"),
        ('{% if !nope && container.name == "c1" || nope %}y{% endif %}', "y"),
        ("{% if nope.deeper.still %}a{% elif 1 %}b{% endif %}", "b"),
        ("{% for name, device in devices %}{{ name }}={{ device.type }} {% endfor %}",
         "a=disk eth0=nic "),
        ("{% for name in devices %}{{ name }} {% endfor %}", "a eth0 "),
        ("{% for name in devices reversed %}{{ name }} {% endfor %}", "eth0 a "),
        ("{% for a in nope %}x{% empty %}none{% endfor %}", "none"),
        ('{{ nope|default:"z" }}{{ nope|default:container.name }}', "zc1"),
        ('{{ "a b"|split:" "|join:"," }}|{{ "x"|upper|lower|capfirst }}', "a,b|X"),
        ('{% ifequal container.name "c1" %}eq{% endifequal %}', "eq"),
        ("{% autoescape off %}<&{{ '<' }}{% endautoescape %}", "<&<"),
        ("a{# no #}b{% comment %}{{ x y {% endcomment %}c", "abc"),
        ("{% verbatim %}{{ x }}{% endverbatim %}{% raw %}{% y %}{% endraw %}", "{{ x }}{% y %}"),
        ("{% set x = 1 + 2 %}{{ x }}", "3"),
        ('{{ "}}%}" }}', "}}%}"),
        ("{{ 'it\\'s' }}", "it's"),
        ("a {{- container.name -}} b", "ac1b"),
        ("{{ properties.items }}", "I"),
        ("no newline is lost\n\n", "no newline is lost\n\n"),
        ("", ""),
    ],
)  # fmt: skip
def test_language(source: str, text: str) -> None:
    assert render(source) == text


@pytest.mark.parametrize(
    "source",
    [
        "{{ x", "{% if 1 %}", "{% %}", "{# x", '{{ "x }}', "{% comment %}", "{% verbatim %}",
        '{% include "/etc/passwd" %}', '{% import "os" as os %}', "{% macro f() %}{% endmacro %}",
        '{{ "a" * 99999999 }}', "{{ 2 ** 99 }}", '{{ "%9999d" % 1 }}', '{{ "a".ljust(99) }}',
        '{{ "a" ~ "b" }}', '{{ "}}" ~ "x" }}', "{{ [1] }}", "{{ {} }}", "{{ 1 is odd }}",
        "{{ nope() }}", "{{ container.name|nope }}", "{{ container|each(1, -5) }}", "{{ 1 / 0 }}",
        "{% for a in 'ab' recursive %}{% endfor %}", "{% for a in 'ab' if 1 %}{% endfor %}",
        "{% block x %}{% endblock %}", "{% call f() %}{% endcall %}", "{% extends 'x' %}",
        "{% set x %}{% endset %}", "{% filter upper %}{% endfilter %}", "{{ x \x00 }}",
    ],
)  # fmt: skip
def test_refused(source: str) -> None:
    with pytest.raises(Failed, match=r'^Failed to render template "x.tpl": '):
        render(source)


@pytest.mark.parametrize(
    "source",
    ["{{ container.__class__ }}", '{{ "".__class__.__mro__ }}', "{{ config_get.__globals__ }}",
     '{{ container["__class__"] }}', "{{ lipsum }}{{ range }}{{ self.x }}", "{{ container.keys }}"],
)  # fmt: skip
def test_nothing_of_python_shows(source: str) -> None:
    assert render(source) == ""


@pytest.mark.parametrize(
    "source",
    [
        "{{" * 60_000, "{% comment %}" * 9000, '{{ "' * 30_000, '{{ "\\"' * 30_000,
        "{% for a in b %}" * 5000, "{{ a }}" * 30_000, "{{ " + "(" * 9000 + "1" + ")" * 9000 + "}}",
        "{{ " + "not " * 30_000 + "1 }}", "{% if 1 %}" * 10_000, "{{ a" + "|upper" * 9000 + "}}",
        "{% set a = config_get('user.big') %}" + "{% set a = a + a %}" * 50 + "{{ a }}",
        "{% for a in config_get('user.big') %}{% for b in config_get('user.big') %}"
        "{% endfor %}{% endfor %}",
        "{% for a in config_get('user.big') %}{{ config_get('user.big')|upper }}{% endfor %}",
        "{% for a in config_get('user.big') %}{{ config_get('user.big') }}{% endfor %}",
        "x" * (pongo.MAX_SOURCE + 1),
    ],
)  # fmt: skip
def test_bombs_fizzle(source: str) -> None:
    begin = time.monotonic()
    with pytest.raises(Failed):
        render(source)
    assert time.monotonic() - begin < 5


PIECES = st.sampled_from(
    ["{{", "}}", "{%", "%}", "{#", "#}", '"', "'", "\\", "a", " ", "|", ":", "if", "for", "in",
     "endif", "endfor", "else", "raw", "comment", "container", ".", "(", ")", "\n", "-", "!", "&&"]
)  # fmt: skip


@settings(deadline=None)
@given(st.lists(PIECES, max_size=30))
def test_any_text_is_rendered_or_refused(pieces: list[str]) -> None:
    try:
        render(" ".join(pieces))
    except Failed:
        pass


@given(st.text().filter(lambda text: "{" not in text and "\r" not in text))
def test_plain_text_stays(text: str) -> None:
    assert render(text) == text


def test_files() -> None:
    images = [
        Template("/etc/hostname", "hostname.tpl", ("create", "copy")),
        Template("/etc/hosts", "hosts.tpl", ("start", "create"), create_only=True),
        Template("/etc/never", "never.tpl", ("rename",)),
    ]
    assert templates.wanted(images, ["create", "start"]) == ["hostname.tpl", "hosts.tpl"]
    sources = {"hostname.tpl": "{{ container.name }}\n", "hosts.tpl": "{{ trigger }}"}
    assert templates.render(images, sources, ["create", "start"], INSTANCE) == (
        FileWrite("/etc/hostname", "c1\n"),
        FileWrite("/etc/hosts", "create", create_only=True),
    )
    assert templates.render(images, sources, ["start"], INSTANCE) == (
        FileWrite("/etc/hosts", "start", create_only=True),
    )
    with pytest.raises(Failed, match='template "never.tpl" of "/etc/never": the image has no'):
        templates.render(images, sources, ["rename"], INSTANCE)


#: as images of LXD's servers seed cloud-init, which looks into /var/lib/cloud/seed/nocloud-net
SEED = {
    "meta-data": (
        "#cloud-config\ninstance-id: {{ container.name }}\nlocal-hostname: {{ container.name }}\n"
        '{{ config_get("user.meta-data", "") }}\n'
    ),
    "user-data": (
        '{% if config_get("cloud-init.user-data", "") == "" %}'
        '{{ config_get("user.user-data", properties.default) }}'
        '{% else %}{{- config_get("cloud-init.user-data", properties.default) }}{% endif %}'
    ),
    "network-config": (
        '{% if config_get("user.network-config", "") == "" %}version: 1\nconfig:\n'
        "  - type: physical\n    name: "
        '{% if instance.type == "virtual-machine" %}enp5s0{% else %}eth0{% endif %}\n'
        "    subnets:\n      - type: "
        '{% if config_get("user.network_mode", "") == "link-local" %}manual{% else %}dhcp'
        '{% endif %}\n        control: auto{% else %}{{ config_get("user.network-config", "") }}'
        "{% endif %}\n"
    ),
}


@pytest.mark.parametrize(
    ("config", "user_data", "network"),
    [
        ({}, "#cloud-config\n{}", "type: dhcp"),
        ({"user.user-data": "#cloud-config\na: 1\n"}, "#cloud-config\na: 1", "type: dhcp"),
        ({"cloud-init.user-data": "#!/bin/sh", "user.user-data": "x",
          "user.network_mode": "link-local"}, "#!/bin/sh", "type: manual"),
        ({"user.network-config": "version: 2"}, "#cloud-config\n{}", "version: 2"),
    ],
)  # fmt: skip
def test_seeds_of_cloud_init(config: dict[str, str], user_data: str, network: str) -> None:
    instance = make(expanded_config=config)
    values = templates.values(instance, "create", "/x", {"default": "#cloud-config\n{}"})
    found = {name: Renderer(values).render(name, source) for name, source in SEED.items()}
    assert found["user-data"] == user_data
    assert network in found["network-config"]
    assert "instance-id: c1\nlocal-hostname: c1\n" in found["meta-data"]
