"""What is special about DINO and MoBY."""

import torch
from siamese_cases import SWIN, build, draw_views


def test_the_teacher_sees_global_crops_only():
    method = build("dino")
    views = draw_views(method)
    seen = []
    encode = method.teacher.encoder.encode_sizes

    def watch(images, levels):
        seen.extend(each.shape for each in images)
        return encode(images, levels)

    method.teacher.encoder.encode_sizes = watch
    output = method(views)
    assert seen == [(4, 3, 32, 32)]
    with torch.no_grad():
        said = method.teacher.heads["image"](method.represent(method.teacher, views[:1]))
    torch.testing.assert_close(output.state["image"], said.mean((0, 1)))


def test_an_image_is_its_class_token_or_the_mean_of_its_tokens():
    for name in ("dino", "dino-swin"):
        method = build(name).eval()
        views = draw_views(method)
        features = method.student.encoder(views.local_crops[1])
        expected = features.class_token
        if expected is None:
            expected = features.tokens.mean(dim=1)
        found = method.represent(method.student, views.by_size())
        torch.testing.assert_close(found[3], expected)
    assert method.config.encoder == SWIN


def test_a_crop_does_not_teach_itself():
    """With two crops, what the student says of crop 0 is compared to the teacher's crop 1."""
    method = build("dino")
    crops = draw_views(method).global_crops.clone()
    views = draw_views(method)._replace(global_crops=crops, local_crops=crops[:0])
    crops.requires_grad_()
    with torch.no_grad():
        teacher = method.represent(method.teacher, views.by_size())
    head = method.student.heads["image"]
    objective = method.objectives["image"]
    student = method.represent(method.student, (crops,))
    targets = objective.sharpen(method.teacher.heads["image"](teacher)).flip(0)
    expected = -(targets * (head(student) / 0.1).log_softmax(-1)).sum(-1).mean()
    torch.testing.assert_close(method(views).loss, expected)
