from transdiff_jax.parallel.libtpu import set_up


def test_stacks_are_asked_for_beside_what_the_user_asks_for():
    environment = {"LIBTPU_INIT_ARGS": "--other=1", "HOME": "x"}
    set_up(environment)
    assert environment == {"LIBTPU_INIT_ARGS": "--other=1 --fibers_default_thread_stack_size=4194304", "HOME": "x"}
    once = dict(environment)
    set_up(environment)
    assert environment == once


def test_the_users_own_size_stays():
    environment = {"LIBTPU_INIT_ARGS": "--fibers_default_thread_stack_size=8000000"}
    set_up(environment)
    assert environment == {"LIBTPU_INIT_ARGS": "--fibers_default_thread_stack_size=8000000"}


def test_without_any():
    environment = {}
    set_up(environment)
    assert environment == {"LIBTPU_INIT_ARGS": "--fibers_default_thread_stack_size=4194304"}
