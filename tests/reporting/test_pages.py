"""HTML pages: escaped, styled, whole."""
import base64
import re

import cv2
import numpy as np
import pytest
from jinja2 import UndefinedError

from mmadder.reporting.figures import subplots
from mmadder.reporting.pages import embedded, swatch, write_page

TEMPLATE = '''\
{% extends 'page.html' %}
{% from 'parts.html' import picture, table %}
{% block content %}
<p>{{ text }}</p>
{{ table(('<name>', 'value'), rows) }}
{{ table((), [('a', 'b')], wide=false) }}
{{ picture(source, 'a "quoted" text') }}
{% endblock %}
'''


def test_what_is_put_into_a_page_is_escaped(tmp_path):
    page = tmp_path / 'new' / 'page.html'
    write_page(page, TEMPLATE, title='A & B', text='<script>', source='x.png',
               rows=[(swatch('#123456', 'a < b'), .123456), ('c', None)])
    text = page.read_text()
    assert text.startswith('<!doctype html>')
    assert text.endswith('</html>\n')
    assert '<title>A &amp; B</title>' in text and '<h1>A &amp; B</h1>' in text
    assert '<p>&lt;script&gt;</p>' in text
    assert '<th>&lt;name&gt;</th><th>value</th>' in text
    assert ('<td><span class="swatch" style="background:#123456"></span>'
            'a &lt; b</td><td>0.1235</td>') in text
    assert '<td>c</td><td>-</td>' in text
    assert text.count('<tr>') == 4 and text.count('class="wide"') == 1
    assert '<img src="x.png" alt="a &#34;quoted&#34; text">' in text


def test_a_forgotten_value_leaves_no_page(tmp_path):
    page = tmp_path / 'page.html'
    with pytest.raises(UndefinedError, match='text'):
        write_page(page, TEMPLATE, title='A')
    assert not page.exists()


def test_a_picture_inside_the_page():
    figure, axis = subplots(figsize=(2, 2))
    axis.plot([1, 2])
    kind, data = re.fullmatch(r'data:image/(\w+);base64,(.*)',
                              embedded(figure)).groups()
    picture = cv2.imdecode(np.frombuffer(base64.b64decode(data), np.uint8),
                           cv2.IMREAD_COLOR)
    assert kind == 'png' and picture.shape[0] == 240 and picture.std() > 5
