"""How much memory the GPUs of a cluster have, as far as Ray's names tell."""

from cluster.gpus import GIB, least_memory

H100 = {"CPU": 96.0, "GPU": 8.0, "accelerator_type:H100": 1.0}
L40S = {"CPU": 32.0, "GPU": 4.0, "accelerator_type:L40S": 1.0}


def test_the_smallest_gpu_decides_and_nodes_without_any_do_not_count():
    assert least_memory([H100, L40S, {"CPU": 8.0}]) == 48 * GIB


def test_it_is_not_known_if_one_node_does_not_tell():
    assert least_memory([H100, {"GPU": 8.0}]) is None
    assert least_memory([H100, {"GPU": 8.0, "accelerator_type:A100": 1.0}]) is None  # there are two sizes
    assert least_memory([{"CPU": 8.0}]) is None


def test_a_label_that_names_the_size_counts():
    assert least_memory([{"GPU": 8.0, "accelerator_type:A100": 1.0, "accelerator_type:A100-40G": 1.0}]) == 40 * GIB
