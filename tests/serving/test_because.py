import numpy as np

from seqrec.serving.because import because


def test_the_nearest_items_of_a_history():
    vectors = np.array([[2, 0], [0, 3], [1, 1], [0, 0]], dtype=np.float32)
    found = because(vectors, np.array([0, 1]), np.array([2, 1, 2, 0, 3]), most=2)
    assert found == [[0, 2], [1, 2]]
    assert because(vectors, np.array([0]), np.array([], dtype=np.int64)) == [[]]
    assert because(vectors, np.array([3]), np.array([1])) == [[1]]
