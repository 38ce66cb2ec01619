"""Names of instances, snapshots, profiles and devices: what is allowed, and what we make up."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Container, Sequence

from lxpy.errors import BadRequest, Conflict, InvalidConfig

_HOSTNAME = re.compile(r"[A-Za-z0-9-]+")
_ON_DISK = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_DEVICE = re.compile(r"[A-Za-z0-9/.:_-]+")
_TRIES = 64

_ADJECTIVES = (
    "able amber ample apt aware bold brave breezy bright brisk calm candid casual clever cosmic "
    "crisp curious daring dapper deft eager early easy elegant epic fair famous fancy fast fine "
    "firm fleet fond frank free fresh gentle giant glad golden good grand great happy hardy "
    "hearty helpful humble ideal jolly keen kind large lively logical loved loyal lucid lucky "
    "magic mellow merry mighty modest native neat nimble noble normal pleasant plucky polite "
    "prime proud quick quiet rapid rare ready regular relaxed rich robust sacred safe sharp "
    "shining sincere smart smooth solid sound square stable steady sturdy sunny super sweet "
    "tender tidy tough trusty upward useful valid valued vast verified vital viable vocal warm "
    "wealthy welcome whole willing wise witty worthy young"
)
_ANIMALS = (
    "adder albatross alpaca ant antelope badger basilisk bass bat bear beaver bee beetle bison "
    "boar bream buck buffalo bull bullfrog camel caribou cat catfish cheetah chipmunk cicada clam "
    "cobra cod colt coral cow crab crane crayfish cricket crow deer dingo dolphin donkey "
    "dove dragon duck eagle eel elephant elk falcon ferret finch firefly fish flea fox frog "
    "gannet gazelle gecko gibbon giraffe glider gnat goat goldfish goose gopher grouse grub "
    "gull guppy hamster hare hawk hedgehog hen heron hippo honeybee hornet horse husky ibex "
    "iguana impala insect jackal jaguar jay jennet kangaroo katydid kid kit kite kitten "
    "koala koi krill lab lacewing ladybird lamb lark leech lemming lemur leopard liger lion "
    "lizard llama lobster locust lynx macaque macaw magpie mako mallard mammal mammoth manatee "
    "marlin marmot marten mastiff mayfly midge mink minnow mite mole monarch mongoose monitor "
    "monkey moose moray mouse mudfish mule mullet muskox muskrat newt ocelot octopus opossum "
    "orca oriole oryx osprey ostrich otter owl ox oyster panda panther parakeet parrot peacock "
    "pelican penguin perch pheasant pigeon pika piranha polecat pony porpoise possum prawn puma "
    "pup python quagga quail rabbit raccoon ram raven ray redfish reindeer robin rooster rodent "
    "sailfish salmon sawfish scorpion seagull seal seasnail shark sheep shrew shrimp skink skunk "
    "skylark sloth slug snail snake snipe sole sparrow spider sponge squid squirrel stag "
    "starfish starling stingray stork stud sturgeon sunbird sunfish swan swift tadpole tapir "
    "tarpon termite terrapin terrier tetra thrush tick tiger titmouse toad tortoise toucan troll "
    "trout turkey turtle urchin viper vulture wahoo wallaby walleye walrus warthog wasp weasel "
    "weevil werewolf whale whippet wildcat wolf wolfhound wombat worm yak zebra"
)
ADJECTIVES = tuple(_ADJECTIVES.split())
ANIMALS = tuple(_ANIMALS.split())


def check_name(name: str) -> str:
    """Return an instance's name if it is a host name: 1 to 63 letters, digits and hyphens.

    Raises BadRequest in LXD's words.
    """
    problem = ""
    if not 1 <= len(name) <= 63:
        problem = "Name must be 1-63 characters long"
    elif name.startswith("-"):
        problem = 'Name must not start with "-" character'
    elif name.endswith("-"):
        problem = 'Name must not end with "-" character'
    elif not _HOSTNAME.fullmatch(name):
        problem = "Name can only contain alphanumeric and hyphen characters"
    elif name[0].isdigit():
        problem = "Name must not start with a number"
    if problem:
        raise BadRequest(f'Invalid instance name: {problem}, it is "{_shown(name)}"')
    return name


def check_snapshot_name(name: str) -> str:
    """Return a snapshot's name; raise BadRequest when it cannot be one."""
    _check_plain("snapshot", name)
    if not _ON_DISK.fullmatch(name):
        raise BadRequest(
            'Invalid snapshot name: Name can only contain letters, digits, ".", "_", "-" and '
            f'starts with a letter or digit, it is "{_shown(name)}"'
        )
    return name


def check_profile_name(name: str) -> str:
    """Return a profile's name; raise BadRequest when it cannot be one."""
    _check_plain("profile", name)
    return name


def _check_plain(what: str, name: str) -> None:
    problem = ""
    if not name:
        problem = "Name is required"
    elif "/" in name:
        problem = 'Cannot contain "/"'
    elif len(name) > 63:
        problem = "Name must be 1-63 characters long"
    elif name in (".", ".."):
        problem = f'Cannot be "{name}"'
    elif not name.isprintable() or any(character.isspace() for character in name):
        problem = "Cannot contain spaces or control characters"
    if problem:
        raise BadRequest(f'Invalid {what} name: {problem}, it is "{_shown(name)}"')


def check_device_name(name: str) -> None:
    """Raise InvalidConfig unless `name` can be a device's."""
    problem = ""
    if not 1 <= len(name) <= 63:
        problem = "Name must be 1-63 characters long"
    elif name.startswith("."):
        problem = 'Name must not start with "." character'
    elif not _DEVICE.fullmatch(name):
        problem = (
            "Name can only contain alphanumeric, forward slash, hyphen, colon, underscore and "
            "full stop characters"
        )
    if problem:
        raise InvalidConfig(
            f'Device validation failed for "{_shown(name)}": Invalid device name: {problem}'
        )


def generate_name(
    taken: Container[str], choose: Callable[[Sequence[str]], str] = random.choice
) -> str:
    """Make up a free name of the form "adjective-animal". Raises Conflict when it finds none."""
    for _ in range(_TRIES):
        name = f"{choose(ADJECTIVES)}-{choose(ANIMALS)}"
        if name not in taken:
            return name
    for number in range(1, 10_000):
        if (numbered := f"{name}-{number}") not in taken:
            return numbered
    raise Conflict("Could not make up a free instance name: give one")


def _shown(name: str) -> str:
    return name if len(name) <= 80 else f"{name[:77]}..."
